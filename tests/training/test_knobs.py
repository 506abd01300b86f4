"""Every setting of a classifier's training changes what a run leaves, or is tested elsewhere."""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY
from vitkit.app import assemble, train
from vitkit.config import RunConfig, load_config
from vitkit.models import create_model
from vitkit.training.config import (
    EmaConfig,
    OptimizerConfig,
    ScheduleConfig,
    Section,
    TrainerConfig,
)
from vitkit.training.optimizers import build_optimizer
from vitkit.training.task import ClassificationTask
from vitkit.training.task_config import ClassificationConfig, DistillConfig, FinetuneConfig
from vitkit.weights import read_checkpoint, read_file

SECTIONS: dict[str, type[Section]] = {
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "ema": EmaConfig,
    "trainer": TrainerConfig,
    "task": ClassificationConfig,
    "task.distill": DistillConfig,
    "task.finetune": FinetuneConfig,
}

ADAMW, SGD, LION, MUON = (f"optimizer.name={name}" for name in ("adamw", "sgd", "lion", "muon"))
TIMM_ADAMW, TIMM_SGD = "optimizer.name=timm/adamw", "optimizer.name=timm/sgd"
AVERAGED = "ema.enabled=true"
LORA = "task.finetune.mode=lora"
TAUGHT = "task.distill.teacher={run}"
BARE = ("task.distill.teacher={file}", "task.distill.model=resnet20_32")
KEPT = "trainer.keep_checkpoints=1"
LONGER = "trainer.max_epochs=4"
BOTH = ("task.mixup=0.5", "task.cutmix=1.0")
ANY_SIZE = ("model.patch_size=2", "model.dynamic_img_size=true")

FLIPS: list[tuple[str, str, tuple[str, ...]]] = [
    ("optimizer.name", "sgd", ()),
    ("optimizer.lr", "0.01", ()),
    ("optimizer.adamw_lr", "0.01", (MUON,)),
    ("optimizer.layer_decay", "0.5", ()),
    ("optimizer.head_lr_factor", "2.0", ()),
    *(("optimizer.weight_decay", "0.3", (name,)) for name in (ADAMW, SGD, LION, MUON, TIMM_ADAMW)),
    *(("optimizer.betas", "[0.5, 0.8]", (name,)) for name in (ADAMW, LION, MUON, TIMM_ADAMW)),
    *(("optimizer.eps", "0.1", (name,)) for name in (ADAMW, MUON, TIMM_ADAMW)),
    *(("optimizer.momentum", "0.5", (name,)) for name in (SGD, MUON, TIMM_SGD)),
    ("optimizer.ns_steps", "2", (MUON,)),
    ("schedule.name", "linear", ()),
    ("schedule.warmup", "0.5", ()),
    ("schedule.decay", "0.9", ("schedule.name=trapezoid",)),
    ("schedule.min_lr", "1e-3", ()),
    ("ema.enabled", "true", ()),
    ("ema.decay", "0.5", (AVERAGED, "ema.warmup=false")),
    ("ema.warmup", "false", (AVERAGED,)),
    ("trainer.max_epochs", "1", ()),
    ("trainer.precision", "bf16-mixed", ()),
    ("trainer.accumulate_grad_batches", "2", ("model.proj_drop_rate=0.2",)),
    ("trainer.gradient_clip", "0.01", ()),
    ("trainer.early_stopping_patience", "1", (LONGER,)),
    ("trainer.monitor", "val/loss", (LONGER,)),
    ("trainer.save_every_n_steps", "4", (KEPT,)),
    ("trainer.save_every_n_epochs", "3", ("trainer.keep_checkpoints=3", LONGER)),
    ("trainer.keep_checkpoints", "1", ()),
    ("trainer.keep_best", "true", (KEPT, LONGER)),
    ("trainer.log_every_n_steps", "2", ()),
    ("task.label_smoothing", "0.1", ()),
    ("task.mixup", "0.5", ()),
    ("task.cutmix", "1.0", ()),
    ("task.mix_prob", "0.3", BOTH),
    ("task.mix_switch_prob", "0.1", BOTH),
    ("task.mix_mode", "batch", BOTH),
    ("task.progressive_sizes", "[[0.5, 4]]", ANY_SIZE),
    ("task.class_weights", "balanced", ("data.synthetic_classes=3",)),
    ("task.distill.teacher", "{run}", ()),
    ("task.distill.kind", "hard", (TAUGHT,)),
    ("task.distill.weight", "0.9", (TAUGHT,)),
    ("task.distill.temperature", "3.0", (TAUGHT,)),
    ("task.distill.mean", "[0.1, 0.2, 0.3]", BARE),
    ("task.distill.std", "[0.5, 0.6, 0.7]", BARE),
    ("task.finetune.mode", "bias", ()),
    ("task.finetune.last_blocks", "1", ("task.finetune.mode=partial",)),
    ("task.finetune.rank", "2", (LORA,)),
    ("task.finetune.alpha", "3.0", (LORA,)),
    ("task.finetune.targets", "[k, fc1]", (LORA,)),
    ("task.finetune.freeze_patch_embed", "true", ()),
    ("task.finetune.zero_head", "true", ()),
    ("data.repeats", "2", ()),
    ("data.sampling", "balanced", ()),
    ("run.seed", "1", ()),
]
"""Key, another value than the usual one, what both runs have besides."""

ELSEWHERE = {
    "trainer.max_time": "training/test_budget.py::test_the_schedule_ends_with_the_time",
    "trainer.accelerator": "training/test_knobs.py::test_hardware_is_what_lightning_is_told",
    "trainer.devices": "app/test_processes.py::test_two_processes_equal_one",
    "trainer.strategy": "app/test_processes.py::test_two_processes_equal_one",
    "trainer.deterministic": "training/test_knobs.py::"
    "test_the_kernels_are_the_deterministic_ones_unless_it_is_switched_off",
    "trainer.compile": "training/test_compile.py::test_a_compiled_network_learns_the_same",
    "trainer.grad_checkpointing": "training/test_memory.py::test_recomputing_blocks_changes_no_bit",
    "trainer.wandb": "training/test_loggers.py::test_weights_and_biases_are_one_logger_more",
    "task.distill.model": "training/test_distillation.py::"
    "test_a_bare_file_of_a_model_of_one_size_gets_that_size",
    "task.finetune.head": "app/test_probe_head.py::test_the_first_answers_are_the_probes",
}
"""Key -> the test of it, where it is meant to leave the same, or needs what is made there."""

Left = tuple[dict[str, Tensor], dict[str, int], int]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher's run, and the bare weights of another one."""
    folder = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITKIT_RUN_DIR", raising=False)
        train(None, [*TINY, f"run.dir={folder / 'run'}"], progress=False)
    torch.manual_seed(0)
    torch.save(create_model("resnet20_32", num_classes=4).state_dict(), folder / "resnet.pth")
    return {"run": folder / "run", "file": folder / "resnet.pth"}


def _left(config: RunConfig) -> Left:
    """All weights at the end, the step of each checkpoint, and how many rows the log has."""
    folder = train(config, progress=False).folder
    content = read_file(folder / "checkpoints" / "last.ckpt")
    averaged = content["vitkit"].get("averaged") or {}
    weights = {**content["state_dict"], **{f"averaged.{n}": t for n, t in averaged.items()}}
    steps = {p.name: read_checkpoint(p).step for p in (folder / "checkpoints").iterdir()}
    with (folder / "metrics.csv").open() as file:
        return weights, steps, len(list(csv.DictReader(file)))


def _alike(one: Left, other: Left) -> bool:
    same = one[0].keys() == other[0].keys() and one[1:] == other[1:]
    return same and all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


@pytest.fixture(scope="module")
def bases() -> dict[tuple[str, ...], Left]:
    """What the unchanged runs leave, by what they have besides."""
    return {}


@pytest.mark.parametrize(
    ("key", "value", "besides"),
    FLIPS,
    ids=[f"{key} {besides[0]}" if besides else key for key, _, besides in FLIPS],
)
def test_every_setting_is_felt(
    tiny: Callable[..., RunConfig],
    bases: dict[tuple[str, ...], Left],
    places: dict[str, Path],
    key: str,
    value: str,
    besides: tuple[str, ...],
) -> None:
    words = ["trainer.max_epochs=2", *(word.format(**places) for word in besides)]
    if besides not in bases:
        bases[besides] = _left(tiny(*words, folder="base"))
        assert _alike(_left(tiny(*words, folder="again")), bases[besides])
    flipped = f"{key}={value.format(**places)}"
    assert not _alike(_left(tiny(*words, flipped, folder="flipped")), bases[besides])


def test_no_setting_is_forgotten() -> None:
    keys = {f"{section}.{name}" for section, of in SECTIONS.items() for name in of.model_fields}
    known = {key for key, _, _ in FLIPS} | set(ELSEWHERE)
    assert keys - {"task.name", "task.distill", "task.finetune"} - known == set()
    for key, test in ELSEWHERE.items():
        assert f"{key}=" in _code_of(test), key


def _code_of(test: str) -> str:
    """Of a test that there must be, named as pytest names it, below this folder's parent."""
    file, _, name = test.partition("::")
    code = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    functions = {
        part.name: part for part in ast.parse(code).body if isinstance(part, ast.FunctionDef)
    }
    assert name in functions, test
    return ast.get_source_segment(code, functions[name]) or ""


def test_hardware_is_what_lightning_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock()
    monkeypatch.setattr(assemble, "Trainer", made)
    words = ["trainer.accelerator=cuda", "trainer.devices=2", "trainer.strategy=ddp"]
    config = load_config([], [*words, "trainer.precision=bf16-mixed"])
    assert assemble.make_trainer(config, max_steps=7) is made.return_value
    told = made.call_args.kwargs
    assert (told["accelerator"], told["devices"], told["strategy"]) == ("cuda", 2, "ddp")
    assert (told["precision"], told["max_steps"]) == ("bf16-mixed", 7)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("adamw", {"betas": (0.6, 0.7), "eps": 1e-3}),
        ("sgd", {"momentum": 0.3}),
        ("lion", {"betas": (0.6, 0.7)}),
        ("muon", {"betas": (0.6, 0.7), "eps": 1e-3, "momentum": 0.3, "ns_steps": 3}),
        ("timm/adamw", {"betas": (0.6, 0.7), "eps": 1e-3}),
        ("timm/lion", {"betas": (0.9, 0.999)}),  # AdamW's, which are not its own
        ("timm/sgd", {"momentum": 0.3}),
    ],
)
def test_an_optimiser_holds_what_it_was_given(name: str, more: dict[str, Any]) -> None:
    model: nn.Module = create_model("vit_mini_patch4_32", depth=1)
    config = OptimizerConfig(name=name, lr=0.123, adamw_lr=0.123, weight_decay=0.045, **more)
    for group in build_optimizer(model, config).param_groups:
        assert {key: group[key] for key in more} == more
        assert group["lr"] == 0.123 and group["weight_decay"] in (0.0, 0.045)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_kernels_are_the_deterministic_ones_unless_it_is_switched_off(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    seen: list[bool] = []
    step = ClassificationTask.training_step

    def spy(self: ClassificationTask, *args: Any) -> Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *args)

    monkeypatch.setattr(ClassificationTask, "training_step", spy)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(not wanted)
        word = f"trainer.deterministic={str(wanted).lower()}"
        train(tiny(word, "trainer.max_epochs=1"), progress=False)
    finally:
        torch.use_deterministic_algorithms(before)
    assert seen == [wanted] * 3


def test_repeated_images_stand_side_by_side_each_changed_by_itself(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 52 images, twice, 6 steps of 16; alternating flips: one of each two is mirrored."""
    epochs: list[int] = []
    stored: list[Tensor] = []
    inputs: list[Tensor] = []
    step, learn = ClassificationTask.training_step, ClassificationTask._learn

    def read(self: ClassificationTask, batch: Any, index: int) -> Tensor:
        epochs.append(self.current_epoch)
        stored.append(batch[0])
        return step(self, batch, index)

    def reads(self: ClassificationTask, given: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        inputs.append(given)
        return learn(self, given, goal)

    monkeypatch.setattr(ClassificationTask, "training_step", read)
    monkeypatch.setattr(ClassificationTask, "_learn", reads)
    words = ("data.repeats=2", "data.augment.flip=alternate", "trainer.max_epochs=2")
    result = train(tiny(*words), progress=False)
    assert epochs == [0] * 6 + [1] * 6
    assert result.record.facts["steps"] == 12 and result.record.facts["epochs"] == 2
    for pictures, given in ((stored[:6], inputs[:6]), (stored[6:], inputs[6:])):
        one, two = torch.cat(pictures)[::2], torch.cat(pictures)[1::2]
        assert torch.equal(one, two) and len(one.unique(dim=0)) == 48
        first, second = torch.cat(given)[::2], torch.cat(given)[1::2]
        assert torch.equal(first, second.flip(-1)) and not torch.equal(first, second)
