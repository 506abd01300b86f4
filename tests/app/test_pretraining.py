"""What a pre-training run is good for afterwards, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitkit
from tests.app.neighbours import accuracy_of_neighbours
from tests.app.test_processes import _curve as curve
from tests.app.test_processes import _train as run_process
from tests.training.test_pretraining import DINO, MAE, TASK
from vitkit.app import resume, train, try_one_batch
from vitkit.app.build import build, build_from_checkpoint
from vitkit.app.jobs import job_class
from vitkit.app.prober import probe
from vitkit.cli.advice import next_commands
from vitkit.cli.tables import metric_table
from vitkit.config import RunConfig, load_config
from vitkit.data.info import DataInfo
from vitkit.data.splits import ImageData, ResidentSplit
from vitkit.errors import ConfigError, WeightsError
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]

each_task = pytest.mark.parametrize("name", TASK)


def _pretrained(tiny: Tiny, name: str, *more: str) -> Path:
    """The folder of a short run."""
    config = tiny(*TASK[name], "trainer.max_epochs=1", *more, folder="pre")
    return train(config, progress=False).folder


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


@each_task
@pytest.mark.parametrize(
    "more",
    [
        (),
        ("model.class_token=true", "model.global_pool=token", "model.reg_tokens=2"),
        ("model.class_token=true", "model.global_pool=avg", "model.pos_embed=learn"),
    ],
    ids=["average", "token", "average with class"],
)
def test_its_encoder_starts_a_classification(tiny: Tiny, name: str, more: tuple[str, ...]) -> None:
    folder = _pretrained(tiny, name, *more)
    kept = read_checkpoint(_last(folder))
    shape = [word for word in (*TASK[name], *more) if word.startswith("model.")]
    config = tiny(f"model.weights={_last(folder)}", *shape, "trainer.max_epochs=1")
    built = build(config)
    state = built.model.state_dict()
    assert set(kept.weights) == set(state) - {"head.weight", "head.bias"}
    assert all(torch.equal(state[n], t) for n, t in kept.weights.items())
    assert built.preprocessing.to_dict() == kept.preprocessing
    assert built.report is not None
    assert built.report.new == ["head.weight", "head.bias"]
    unused = {n for n in kept.trained if n.startswith(("decoder_", "mask_token"))}
    assert set(built.report.unused) == unused
    result = train(config, progress=False)
    assert "test/acc" in result.metrics
    lora = tiny(f"model.weights={_last(folder)}", *shape, "task.finetune=lora", folder="lora")
    facts = train(lora, progress=False).record.facts
    assert int(str(facts["trainable_parameters"])) < int(str(facts["parameters"])) / 2


@each_task
def test_the_library_loads_it(tiny: Tiny, name: str) -> None:
    folder = _pretrained(tiny, name)
    model, preprocessing = vitkit.load_model(folder)
    assert model.num_classes == 0
    assert preprocessing.img_size == (8, 8)
    features = model(preprocessing(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
    assert features.shape == (2, 16)
    other = vitkit.load_model(_last(folder), num_classes=7)
    assert other.model(torch.zeros(1, 3, 8, 8)).shape == (1, 7)
    assert torch.equal(other.model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert vitkit.load_model(folder).class_names == ()
    for format in ("safetensors", "timm"):
        made = vitkit.export(folder, format).folder
        assert "without a classifier" in (made / "README.md").read_text()
        assert "test/knn_acc" in (made / "README.md").read_text()
        again = vitkit.load_model(made)
        x = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(again.model(x), model(x))


@each_task
def test_its_neighbours_are_those_of_scikit_learn(tiny: Tiny, name: str) -> None:
    config = tiny(*TASK[name], "trainer.max_epochs=2", folder="pre")
    result = train(config, progress=False)
    model, preprocessing = vitkit.load_model(result.folder)
    data = build(config).data
    splits: dict[str, Any] = {"train": data.train, "val": data.val, "test": data.test}
    with torch.no_grad():
        features = {k: model(preprocessing(split.images)).numpy() for k, split in splits.items()}
    known = features["train"], splits["train"].targets
    for split in ("val", "test"):
        accuracy = accuracy_of_neighbours(20, known, (features[split], splits[split].targets))
        # Rounding may turn a tie of votes: one image at most.
        assert result.metrics[f"{split}/knn_acc"] == pytest.approx(accuracy, abs=1.01 / 12)
    assert "test/knn_acc" in metric_table(result.metrics)
    (line,) = [x for x in metric_table(result.metrics).splitlines() if x.startswith("test/knn")]
    assert line.endswith("%")


@each_task
def test_all_images_are_seen_whatever_share_has_labels(tiny: Tiny, name: str) -> None:
    config = tiny(*TASK[name], "data.label_fraction=0.3")
    job: Any = job_class(config)(config)
    assert len(job.built.data.train) == 52
    assert len(job._labelled()) == 16
    assert (job.num_validated, job.num_tested) == (12, 16 + 12 + 16)
    train(config, progress=False)


def test_a_single_class_has_no_neighbours_to_ask(tiny: Tiny) -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    split = ResidentSplit(images, torch.zeros(40, dtype=torch.int64))
    info = DataInfo("mine", ("picture",), 3, (8, 8), (0.5,) * 3, (0.3,) * 3, 40, 0, 40, (40,))
    data = ImageData(info, split, None, split)
    result = train(tiny(*MAE, "trainer.max_epochs=1"), data=data, progress=False)
    assert result.metrics == {}


@each_task
def test_eval_and_predict_say_what_it_is(tiny: Tiny, name: str) -> None:
    folder = _pretrained(tiny, name)
    words = "is of a pre-training run, which knows no classes; fine-tune it first .*model.weights="
    with pytest.raises(WeightsError, match=words):
        vitkit.evaluate(folder, progress=False)
    with pytest.raises(WeightsError, match=words):
        vitkit.load(folder)
    with pytest.raises(WeightsError, match=words):
        train(tiny(f"task.distill.teacher={folder}", folder="student"), progress=False)
    following = next_commands(folder, name)
    assert following[0].endswith(f"probe {folder}")
    assert following[1].endswith(f"model.weights={_last(folder)}")


@each_task
def test_it_goes_on_from_its_own_weights(tiny: Tiny, name: str) -> None:
    folder = _pretrained(tiny, name)
    config = tiny(*TASK[name], f"model.weights={_last(folder)}", folder="more")
    job: Any = job_class(config)(config)
    kept = read_checkpoint(_last(folder))
    state = job.model.state_dict()
    if name == "mae":  # its decoder goes on too
        assert all(torch.equal(state[n], t) for n, t in kept.trained.items())
    else:
        assert all(torch.equal(state[f"backbone.{n}"], t) for n, t in kept.weights.items())
    train(config, progress=False)


@each_task
def test_a_finished_run_is_left_alone(tiny: Tiny, name: str) -> None:
    folder = _pretrained(tiny, name)
    (folder / "results.json").unlink()
    again = resume(folder, progress=False)
    assert "test/knn_acc" in again.metrics
    encoder, _, info = build_from_checkpoint(read_checkpoint(again.checkpoint))
    assert info.num_classes == 4
    assert not encoder.training


@each_task
def test_muon_and_accumulation_and_bfloat16(tiny: Tiny, name: str) -> None:
    settings = ("optimizer.lr=0.01", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    settings += ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip=1.0")
    weights = []
    for optimizer in ("muon", "adamw"):
        config = tiny(*TASK[name], *settings, f"optimizer.name={optimizer}", folder=optimizer)
        result = train(config, progress=False)
        assert np.isfinite(result.metrics["val/loss"])
        weights.append(read_checkpoint(result.checkpoint).weights)
    for part in ("attn.qkv", "mlp.fc1"):
        one, other = (state[f"blocks.0.{part}.weight"] for state in weights)
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["task.name=mae", "model.name=cct_2_3x2_32"], r"a plain ViT, such as vit_tiny.*another"),
        ([*DINO, "model.name=vit_mini_distilled_patch4_32"], "with a distillation token"),
        ([*MAE, "task.mask_ratio=0.99"], r"task\.name=mae.*0 of 16 patches; allowed: 0\.0625 to"),
        ([*MAE, "task.decoder_embed_dim=9"], r"task\.name=mae.*divisible by 4, given 9"),
        ([*MAE, "model.patch_drop_rate=0.5"], "patch_drop_rate leaves out patches"),
        ([*MAE, "model.patch_size=3"], "not a multiple of the patch size"),
        ([*MAE, "model.num_classes=3"], r"model\.num_classes: given 3"),
        ([*MAE, "task.mixup=0.2"], r"task\.mixup: unknown key"),
        ([*MAE, "model.global_pool=''"], "needs one vector an image"),
        ([*DINO, "ema.enabled=true"], r"ema\.enabled: the teacher"),
        ([*MAE, "optimizer.head_lr_factor=2.0"], r"task\.name=mae trains no classifier"),
        ([*DINO, "data.augment.flip=true"], r"data\.augment: task\.name=dino makes its own views"),
        ([*DINO, "task.local_crops_size=5"], r"task\.local_crops_size: image size 5 x 5 is not"),
        ([*DINO, "task.local_crops_size=16"], r"local_crops_size: given 16, allowed: up to 8"),
        ([*DINO, "task.global_crops_scale=[0.9, 0.5]"], "the smaller first"),
        ([*DINO, "trainer.monitor=val/acc"], r"trainer\.monitor: dino has no val/acc"),
    ],
)
def test_what_cannot_be_done_is_one_line(tiny: Tiny, settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        train(tiny(*settings), progress=False)
    assert len(caught.value.faults) == 1


def test_it_cannot_be_inspected_for_it_knows_no_classes(tiny: Tiny) -> None:
    folder = _pretrained(tiny, "mae")
    with pytest.raises(WeightsError, match="a pre-training run, which knows no classes"):
        vitkit.inspect(folder, [])


def test_a_dry_run_works_and_leaves_nothing(tmp_path: Path) -> None:
    for words in TASK.values():
        settings = ["data.name=synthetic", "data.synthetic_size=100", "data.batch_size=8", *words]
        settings += ["model.img_size=8", "model.embed_dim=16", "model.depth=1", "model.num_heads=2"]
        config = load_config([], [*settings, f"run.root={tmp_path}", "trainer.accelerator=cpu"])
        job = try_one_batch(config)
        assert sum(p.numel() for p in job.model.parameters())
    assert list(tmp_path.iterdir()) == []


@each_task
def test_a_probe_reads_its_features(tiny: Tiny, name: str) -> None:
    folder = _pretrained(tiny, name)
    found = probe(folder, progress=False)
    assert found.path == folder / "probe.json"
    assert 0 < found.metrics["probe/linear_acc"] <= 1
    model, preprocessing = vitkit.load_model(folder)
    data: Any = build(load_config([folder / "config.yaml"], [])).data
    splits = (data.train, data.val, data.test)
    with torch.no_grad():
        train_, val, test = (model(preprocessing(split.images)) for split in splits)
    labels = torch.cat([data.train.targets, data.val.targets])
    known = torch.cat([train_, val]), labels
    for count in (10, 20):
        # Rounding may turn a tie of votes: one image at most.
        wanted = accuracy_of_neighbours(count, known, (test, data.test.targets))
        assert found.metrics[f"probe/knn_{count}_acc"] == pytest.approx(wanted, abs=1.01 / 16)


@pytest.mark.slow
@each_task
def test_two_processes_equal_one(tmp_path: Path, name: str) -> None:
    one = run_process(tmp_path / "one", *TASK[name])
    two = run_process(tmp_path / "two", *TASK[name], "trainer.devices=2", "trainer.strategy=ddp")
    for first, second in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-4)
    assert two["steps"] == one["steps"]
    assert two["test/knn_acc"] == one["test/knn_acc"]
