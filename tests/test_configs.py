"""Every shipped config: it says how to run it and what came out, and it does run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from tests.small_data import write_cifar, write_pairs, write_pictures, write_verses
from vitkit.app import try_one_batch
from vitkit.app.jobs import job_class
from vitkit.app.jobs.images import ImageJob
from vitkit.config import RunConfig, dump_yaml, load_config, to_plain
from vitkit.config.default import EMBEDDED_DEFAULT
from vitkit.config.load import OTHERS, SECTIONS
from vitkit.models import create_model
from vitkit.models.config import CONFIGS
from vitkit.training.task_config import ClassificationConfig

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
CLASSES = {"cifar10": 10, "cifar100": 100, "image_folder": 2}
"""Data set -> classes. Its pictures have three channels and take the model's size."""

VOCABULARIES = {"text": 83, "parallel": 10_000}
"""Data of words -> the vocabulary that an opening comment speaks of."""

each_config = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def _head(path: Path) -> str:
    """The comment that a config opens with, as one text."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return "\n".join(lines)


def head_faults(name: str, head: str) -> list[str]:
    """What the opening comment of a config lacks."""
    faults = []
    if not re.search(rf"^python train\.py configs/{re.escape(name)}( |$)", head, re.M):
        faults.append(f"no line 'python train.py configs/{name}'")
    measured = re.search(r"\bMeasured: (.*?)(\.\s|\.$|$)", head, re.S)
    if measured is None and not re.search(r"\bnot measured yet\b", head, re.I):
        faults.append("neither 'Measured: <result>' nor 'Not measured yet'")
    if measured is not None and not re.search(r"\d", measured[1]):
        faults.append(f"'Measured: {measured[1]}' names no number")
    return faults


def test_there_are_configs() -> None:
    assert len(FILES) >= 7
    names = {load_config([path]).data.name for path in FILES}
    assert names == {*CLASSES, *VOCABULARIES}


@each_config
def test_it_opens_with_its_command_and_its_result(path: Path) -> None:
    assert head_faults(path.name, _head(path)) == []


def test_an_opening_without_command_or_result_is_seen() -> None:
    good = "A model.\n\npython train.py configs/a.yaml data.root=data\n\n"
    assert head_faults("a.yaml", good + "Measured: 91.50 % after 3\nepochs.") == []
    assert head_faults("a.yaml", good + "The full 50 epochs: not measured yet.") == []
    assert head_faults("a.yaml", "Measured: 91.5 %") == ["no line 'python train.py configs/a.yaml'"]
    assert head_faults("b.yaml", good + "Not measured yet.")
    assert head_faults("a.yaml", good)
    unmeasured = "Measured: see docs/results.md. The full 34 epochs: not measured yet."
    assert head_faults("a.yaml", good + unmeasured)


@each_config
def test_it_reads_back_as_it_was_written(path: Path, tmp_path: Path) -> None:
    config = load_config([path])
    again = tmp_path / "again.yaml"
    again.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config([again]) == config


@each_config
def test_its_model_has_the_size_that_the_comment_claims(path: Path) -> None:
    config = load_config([path])
    with torch.device("meta"):
        model = create_model(config.model, **_of_the_data(config.data.name))
    count = sum(p.numel() for p in model.parameters())
    for claim in re.findall(r"(\d+\.\d+) M\s+parameters", _head(path)):
        assert f"{count / 1e6:.{len(claim.split('.')[1])}f}" == claim
    for claim in re.findall(r"(\d[\d,]*)\s+parameters", _head(path)):
        assert f"{count:,}" == claim


def _of_the_data(name: str) -> dict[str, int]:
    if name in VOCABULARIES:
        return {"vocab_size": VOCABULARIES[name]}
    return {"num_classes": CLASSES[name], "in_chans": 3}


@each_config
def test_it_takes_a_training_step(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = load_config([path]).data.name
    if name == "image_folder":
        write_pictures(tmp_path / "data")
    elif name == "text":
        write_verses(Path(load_config([path]).data.root))
    elif name == "parallel":
        write_pairs(Path("data/multi30k"), test="test_2016_flickr")
    else:
        write_cifar(name, tmp_path / "data", monkeypatch)
    size = 200 if name == "parallel" else 2
    config = load_config(
        [path],
        [
            f"data.batch_size={size}",
            f"data.eval_batch_size={size}",
            "trainer.accelerator=cpu",
            "trainer.accumulate_grad_batches=1",
        ],
    )
    before, after = job_class(config)(config), try_one_batch(config)
    if isinstance(before, ImageJob):
        info, size = before.built.info, config.model.constructor_kwargs()["img_size"]
        assert info.num_classes == CLASSES[name]
        assert (info.in_chans, *info.img_size) == (3, size, size)
    changed = set()
    fresh = before.model.state_dict()
    for key, value in after.model.state_dict().items():
        assert value.isfinite().all(), key
        if not torch.equal(value, fresh[key]):
            changed.add(key)
    if isinstance(config.task, ClassificationConfig) and config.task.finetune.zero_head:
        # A head of zeros hands no gradient back: in the first step it alone is sure to move.
        assert {"head.weight", "head.bias"} <= changed
    else:
        assert len(changed) > 0.5 * len(fresh)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_the_recipe_for_own_pictures_fits_a_laptop() -> None:
    """Its scores are held whole where attention has dropout: heads x tokens squared a picture."""
    config = load_config([FOLDER / "image_folder.yaml"])
    with torch.device("meta"):
        model = create_model(config.model, num_classes=2, in_chans=3)
    _, tokens, _ = model.forward_features(torch.zeros(1, 3, 96, 96, device="meta")).shape
    scores = config.data.batch_size * 7 * 4 * tokens**2 * 4  # 7 blocks, 4 heads, 4 bytes
    assert scores < 2**28  # it was 7 GiB
    assert config.model.constructor_kwargs()["attn_drop_rate"] == 0
    assert config.data.eval_batch_size <= 64


def test_the_embedded_default_is_what_runs_when_nothing_is_said() -> None:
    default = load_config()
    assert default == load_config(base=EMBEDDED_DEFAULT)
    plain = to_plain(default)
    for section, keys in EMBEDDED_DEFAULT.items():
        assert {key: plain[section][key] for key in keys} == keys
    assert default.data.name == "digits"
    assert default.trainer.accelerator == "cpu"


def _undescribed(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _undescribed(kind, f"{prefix}.{name}")
        elif not (field.description or "").strip():
            yield f"{prefix}.{name}"


def test_every_key_of_every_section_is_described() -> None:
    assert set(SECTIONS) | {"model"} == set(RunConfig.model_fields)
    sections = {**SECTIONS, **{f"model[{family}]": kind for family, kind in CONFIGS.items()}}
    for section, others in OTHERS.items():
        sections |= {f"{section}[{name}]": kind for name, kind in others.items()}
    assert [key for name, kind in sections.items() for key in _undescribed(kind, name)] == []

    class Bare(BaseModel):
        size: int = 0

    assert list(_undescribed(Bare, "bare")) == ["bare.size"]
