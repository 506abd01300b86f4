"""What a notebook asks of the Python functions: settings as a mapping, own data, own models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import vitkit
from vitkit.app.inspection import _class_index
from vitkit.config import RunConfig, load_config
from vitkit.data.augment import Augment
from vitkit.data.config import AugmentConfig
from vitkit.data.preprocess import Preprocessing
from vitkit.errors import ConfigError, DataError, UnknownNameError
from vitkit.evaluation.classification import predict_all
from vitkit.models import create_model
from vitkit.nn import LoraLinear, add_lora

Tiny = Callable[..., RunConfig]


def test_settings_may_be_a_mapping(tmp_path: Path) -> None:
    given = {
        "trainer.max_epochs": 3,
        "optimizer.lr": 1e-3,
        "run.name": "off: 1e-3 # no",
        "model.img_size": [8, 8],
        "data.root": tmp_path / "a b \U0001f33c",
        "model.weights": None,
    }
    config = load_config([], given)
    assert (config.trainer.max_epochs, config.optimizer.lr) == (3, 1e-3)
    assert config.run.name == "off: 1e-3 # no" and config.model.img_size == (8, 8)
    assert config.data.root == str(tmp_path / "a b \U0001f33c") and config.model.weights is None


def test_a_setting_without_a_value_is_no_null() -> None:
    with pytest.raises(ConfigError, match=r"'model\.weights': an override is SECTION\.KEY=VALUE"):
        load_config([], ["model.weights"])


def test_a_run_on_data_of_ones_own_is_not_evaluated_on_other_data(tiny: Tiny) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    own = [(picture, i % 4) for i, picture in enumerate(pictures)]
    names = [f"class {i}" for i in range(4)]
    data = vitkit.data_from_datasets(own, test=own[:8], class_names=names, name="mine")
    result = vitkit.train(tiny("trainer.max_epochs=1"), data=data, progress=False)
    with pytest.raises(DataError, match=r"was trained on mine, which was handed in as data="):
        vitkit.evaluate(result.folder, progress=False)
    found = vitkit.evaluate(result.folder, data=data, progress=False)
    assert found.metrics["test/acc"] == result.metrics["test/acc"]
    assert found.record.facts["data"] == result.record.facts["data"] == "mine"
    late = ["data.val_fraction=0.5", "data.batch_size=4", "data.augment.flip=true"]
    late += ["data.normalize=half"]  # which decides against the statistics of weights, too
    with pytest.raises(ConfigError, match=r"data\.val_fraction: comes too late") as caught:
        vitkit.train(tiny(), late, data=data, progress=False)
    assert len(caught.value.faults) == 1


def test_a_training_says_its_rates_and_what_nothing_reads(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["optimizer.name=muon", "schedule.name=linear", "schedule.warmup=0.25"]
    vitkit.train(tiny("trainer.max_epochs=1"), [*more, "ema.decay=0.5"])
    lines = capsys.readouterr().out.splitlines()
    rates = "muon: lr 0.02, of AdamW beside it 0.004, weight decay 0.05; linear, warm-up 0.25"
    assert f"optim  {rates}" in lines
    assert "note   ema.decay: read only by ema.enabled=true" in lines


def test_pictures_that_were_made_floats_already_are_refused() -> None:
    prepare = Preprocessing(img_size=(4, 4), mean=(0.5,), std=(0.25,), in_chans=1)
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    with pytest.raises(DataError, match=r"must be uint8 .* given torch\.float32; drop ToTensor"):
        prepare(images / 255)
    assert torch.equal(prepare(images), prepare.scaled(images.double()))
    augment = Augment(AugmentConfig(crop_padding=1))
    with pytest.raises(DataError, match=r"takes uint8 images, given torch\.float32"):
        augment(images / 255, torch.arange(2), 0)
    with pytest.raises(DataError, match="flip=alternate goes by the image: give size"):
        Augment(AugmentConfig(flip="alternate"))


def test_adapters_beside_a_head_that_is_new() -> None:
    def trained(**options: bool) -> set[str]:
        model = create_model("vit_mini_patch4_32", depth=1, num_classes=5)
        add_lora(model, **options)
        assert any(isinstance(module, LoraLinear) for module in model.modules())
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert trained(train_head=True) - trained() == {"head.weight", "head.bias"}


def test_the_rooms_are_there_when_they_are_asked_for() -> None:
    code = "import vitkit; print(vitkit.nn.Trunk.__name__, vitkit.evaluation.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["Trunk", "vitkit.evaluation"]
    assert {"nn", "data", "evaluation"} <= set(dir(vitkit))
    with pytest.raises(AttributeError, match="no attribute 'utils'"):
        vitkit.utils  # noqa: B018


def test_predictions_of_a_model_and_batches_of_ones_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    model[2].eval()  # its own mode, to be given back
    images, targets = torch.randn(10, 6), torch.randint(3, (10,))
    pairs = list(zip(images.split(4), targets.split(4), strict=True))
    found = predict_all(model, pairs)
    assert [model.training, model[1].training, model[2].training] == [True, True, False]
    assert torch.equal(found.indices, torch.arange(10)) and torch.equal(found.targets, targets)
    torch.testing.assert_close(found.logits, model.eval()(images).detach())


def test_a_class_by_its_number() -> None:
    assert _class_index(2, ("a", "b", "c")) == 2
    with pytest.raises(UnknownNameError, match="unknown class '3'"):
        _class_index(3, ("a", "b", "c"))


def test_lines_of_others_that_are_nearly_right() -> None:
    with pytest.raises(ConfigError, match=r"'pretrained'; published weights: vitkit.load_model\("):
        vitkit.create_model("vit_tiny_patch16_224", pretrained=True)
    with pytest.raises(ValueError, match="takes the name first"):

        @vitkit.register_model
        def my_net() -> None: ...

    with pytest.raises(ValueError, match="'cifar10' is taken"):
        vitkit.register_dataset("cifar10")


def test_a_report_of_weights_reads_as_its_lines() -> None:
    model = create_model("vit_mini_patch4_32", depth=1)
    report = vitkit.load_weights(model, model.state_dict())
    assert str(report).splitlines() == report.lines() and "loaded" in str(report)
    assert json.dumps(str(report))
