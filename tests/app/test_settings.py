"""No setting is forgotten: each has a test that fails where it is not read.

Here are those sections that have no table of their own; a classifier's training has one in
``tests/training/test_knobs.py``, the models in ``tests/models/test_model_knobs.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import BaseModel

from tests.small_data import write_pairs
from tests.small_words import pair_run, text_run
from vitkit.app import train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig
from vitkit.config.run import RunSection
from vitkit.data import cifar
from vitkit.data.config import ImageDataConfig
from vitkit.data.sources import load_data
from vitkit.data.text.config import ParallelDataConfig, TextDataConfig
from vitkit.data.text.sources import load_pairs
from vitkit.errors import DataError
from vitkit.evaluation.config import EvalConfig
from vitkit.training.task_config import TranslationConfig
from vitkit.weights import read_checkpoint

TESTS = Path(__file__).parents[1]

PROOFS: dict[type[BaseModel], dict[str, dict[str, str]]] = {
    RunSection: {
        "app/test_reporter.py": {"test_no_page_where_none_is_wanted": "report"},
        "app/test_seeds.py": {"test_mean_and_deviation_of_every_seed": "name root"},
        "cli/test_bad_input.py": {"test_a_used_folder_is_never_overwritten": "dir"},
        "training/test_knobs.py": {"test_every_setting_is_felt": "seed"},
    },
    ImageDataConfig: {
        "app/test_settings.py": {
            "test_batches_of_images_are_as_large_as_they_are_told": "batch_size eval_batch_size",
            "test_synthetic_images_are_as_many_as_they_are_told": (
                "synthetic_size synthetic_classes"
            ),
            "test_where_a_download_comes_from": "download",
        },
        "app/test_streaming.py": {
            "test_workers_of_a_folder_that_is_streamed": (
                "num_workers prefetch_factor persistent_workers"
            ),
        },
        "app/test_subjects.py": {
            "test_another_size_resamples_the_positions_as_loading_does": "img_size",
        },
        "data/test_fitting.py": {
            "test_files_that_are_trusted_are_opened_when_they_are_needed": "on_bad_image",
            "test_pictures_of_any_shape_reach_the_model_as_a_prediction_shows_them": (
                "name interpolation crop_pct crop_mode"
            ),
        },
        "data/test_labels.py": {
            "test_training_gets_the_share_and_validation_and_test_stay_whole": "label_fraction",
        },
        "data/test_sources.py": {
            "test_damaged_images_are_all_named_before_training": "max_pixels",
            "test_image_folder_resident_and_streamed_agree": "root",
            "test_images_over_the_budget_are_resized_as_they_are_taken": (
                "resident resident_budget_mb"
            ),
            "test_statistics_are_those_of_the_training_pixels": "normalize",
            "test_test_and_validation_are_cut_by_seeds_of_their_own": "val_fraction split_seed",
        },
        "training/test_knobs.py": {
            "test_every_setting_is_felt": "sampling repeats",
            "test_repeated_images_stand_side_by_side_each_changed_by_itself": "augment",
        },
    },
    TextDataConfig: {
        "app/test_settings.py": {
            "test_steps_and_batches_of_a_text_are_as_they_are_told": (
                "steps_per_epoch batch_size eval_batch_size"
            ),
        },
        "app/test_words.py": {
            "test_it_reads_no_more_at_a_time_than_its_windows_taught_it": "window",
        },
        "cli/test_words.py": {"test_a_training_ends_with_what_to_run_next": "name"},
        "data/text/test_sources.py": {
            "test_a_text_comes_back_from_its_ids": "root tokenizer",
            "test_a_text_is_cut_in_order": "val_fraction",
        },
        "training/test_words_runs.py": {
            "test_weights_bring_their_tokeniser_wherever_they_lie": "vocab_size",
        },
    },
    ParallelDataConfig: {
        "app/test_settings.py": {
            "test_batches_of_pairs_are_as_large_as_they_are_told": "batch_size eval_batch_size",
            "test_files_of_pairs_are_called_as_they_are_told": "train val test",
        },
        "cli/test_words.py": {"test_a_training_ends_with_what_to_run_next": "name"},
        "data/text/test_sources.py": {
            "test_bad_training_pairs_stop_or_are_left_out": "on_bad_pair tokenizer",
            "test_pairs_of_a_folder": "root source target vocab_size",
        },
    },
    TranslationConfig: {
        "app/test_settings.py": {"test_goals_of_a_translator_are_smoothed": "label_smoothing"},
        "app/test_words.py": {
            "test_a_run_is_tested_as_its_task_says": "num_beams length_penalty",
        },
        "cli/test_words.py": {"test_a_training_ends_with_what_to_run_next": "name"},
    },
    EvalConfig: {
        "app/test_evaluator.py": {
            "test_all_suites_leave_their_files": "mce_baseline",
            "test_how_long_speed_is_measured_and_of_what": (
                "compile speed_seconds speed_max_batch"
            ),
            "test_how_wide_an_interval_is": "confidence resamples",
            "test_other_test_sets_of_cifar10": "cifar10_1 cifar10h cifar_c",
            "test_other_test_sets_of_imagenet": (
                "imagenet_v2 imagenet_a imagenet_r imagenet_sketch imagenet_real imagenet_c"
            ),
            "test_the_shift_suite_asks_about_the_images_that_it_names": (
                "shift_images attack_images epsilons epsilons_l2 pgd_steps"
            ),
            "test_the_validation_split_and_views": "tta seed",
        },
    },
}
"""Section -> file -> test -> the keys that it proves."""


@pytest.mark.parametrize("section", PROOFS, ids=lambda section: section.__name__)
def test_no_setting_is_forgotten(section: type[BaseModel]) -> None:
    proved: list[str] = []
    for file, tests in PROOFS[section].items():
        code = (TESTS / file).read_text(encoding="utf-8")
        there = {part.name for part in ast.parse(code).body if isinstance(part, ast.FunctionDef)}
        assert set(tests) <= there, file
        for keys in tests.values():
            proved += keys.split()
            assert all(re.search(rf"\b{key}\b", code) for key in keys.split()), (file, keys)
    assert sorted(proved) == sorted(section.model_fields)


def _loaders(config: RunConfig) -> tuple[Any, Any]:
    """Of a training in one process: what it learns from, and what it is validated on."""
    here = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, strategy=here)
    return job_class(config)(config).loaders(trainer)


def test_batches_of_images_are_as_large_as_they_are_told(tiny: Callable[..., RunConfig]) -> None:
    learned, asked = _loaders(tiny("data.batch_size=8", "data.eval_batch_size=5"))
    assert [len(batch.images) for batch in learned] == [8] * 6  # of 52
    assert [len(batch.images) for batch in asked] == [5, 5, 2]


def test_synthetic_images_are_as_many_as_they_are_told() -> None:
    config = ImageDataConfig(name="synthetic", synthetic_size=60, synthetic_classes=3)
    data = load_data(config)
    assert data.val is not None and data.test is not None
    assert len(data.train) + len(data.val) + len(data.test) == 60
    assert data.info.class_names == ("class 0", "class 1", "class 2")
    assert set(data.train.targets.tolist()) == {0, 1, 2}


def test_where_a_download_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner, a mirror, or nowhere."""
    asked: list[tuple[str, Path]] = []

    def fetched(layout: cifar.CifarLayout, archive: Path) -> None:
        asked.append((layout.url, archive))

    monkeypatch.setattr(cifar, "_download", fetched)
    layout, mirror = cifar.LAYOUTS["cifar10"], "https://mirror.example/cifar-10.tar.gz"
    for download in (False, True, mirror):
        config = ImageDataConfig(name="cifar10", root=str(tmp_path), download=download)
        with pytest.raises(DataError, match="cifar10 is not in"):
            load_data(config)
    archive = tmp_path / layout.archive[0]
    assert asked == [(layout.url, archive), (mirror, archive)]


def test_steps_and_batches_of_a_text_are_as_they_are_told(tmp_path: Path) -> None:
    settings = ("data.steps_per_epoch=7", "data.batch_size=3", "data.eval_batch_size=5")
    learned, asked = _loaders(text_run(tmp_path / "run", *settings))
    assert [len(batch.inputs) for batch in learned] == [3] * 7
    assert {len(batch.inputs) for batch in asked} == {5}


def test_batches_of_pairs_are_as_large_as_they_are_told(tmp_path: Path) -> None:
    """In tokens of the longer side."""
    for sizes in ((400, 120), (200, 60)):
        settings = (f"data.batch_size={sizes[0]}", f"data.eval_batch_size={sizes[1]}")
        loaders = _loaders(pair_run(tmp_path / "run", *settings))
        for size, loader in zip(sizes, loaders, strict=True):
            fullest = max(max(batch.source.numel(), batch.inputs.numel()) for batch in loader)
            assert size / 2 < fullest <= size


def test_files_of_pairs_are_called_as_they_are_told(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    usual = load_pairs(ParallelDataConfig(root=str(tmp_path), tokenizer="char"))
    names = {"train": "learned", "val": "dev", "test": "flickr"}
    for split, name in names.items():
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").rename(tmp_path / f"{name}.{language}")
    found = load_pairs(ParallelDataConfig(root=str(tmp_path), tokenizer="char", **names))
    assert found.texts == usual.texts and set(found.texts) == set(names)


def test_goals_of_a_translator_are_smoothed(tmp_path: Path) -> None:
    weights = []
    for share in (0.0, 0.1, 0.1):
        settings = (f"task.label_smoothing={share}", "data.val=null", "data.test=null")
        config = pair_run(tmp_path / f"run-{len(weights)}", *settings, "trainer.max_epochs=1")
        weights.append(read_checkpoint(train(config, progress=False).checkpoint).trained)
    plain, smoothed, again = weights
    assert all(torch.equal(tensor, again[name]) for name, tensor in smoothed.items())
    hidden = [name for name in smoothed if name.endswith("mlp.fc1.weight")]
    assert hidden and not any(torch.equal(smoothed[name], plain[name]) for name in hidden)
