"""A probed head is where fine-tuning begins: the same answers, by the names of the classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitkit.app import probe, resume, train
from vitkit.app.build import build, build_data
from vitkit.config import RunConfig, load_config
from vitkit.data.splits import ImageData, ResidentSplit
from vitkit.errors import ConfigError, WeightsError
from vitkit.models import create_model
from vitkit.weights import load_head, read_checkpoint, write_head

Tiny = Callable[..., RunConfig]


def test_the_first_answers_are_the_probes(tiny: Tiny) -> None:
    first = train(tiny("trainer.max_epochs=1", folder="first"), progress=False)
    found = probe(first.folder, progress=False)
    words = [f"model.weights={first.checkpoint}", f"task.finetune.head={found.head}"]
    built = build(tiny(*words, folder="next"))
    assert isinstance(built.data.val, ResidentSplit)
    inputs = built.preprocessing(built.data.val.images)
    with torch.no_grad():
        right = built.model.eval()(inputs).argmax(1) == built.data.val.targets
    assert float(right.float().mean()) == pytest.approx(found.metrics["probe/linear_val_acc"])
    assert built.report is not None
    assert set(built.report.new) == {"head.weight", "head.bias"}
    # In another order of the classes each keeps its row.
    data, names = build_data(tiny()), built.info.class_names
    other = ImageData(replace(data.info, class_names=names[::-1]), data.train, data.val, data.test)
    turned = build(tiny(*words, folder="next"), other)
    assert torch.equal(turned.model.head.weight, built.model.head.weight.flip(0))


def test_a_run_that_goes_on_does_not_need_the_file(tiny: Tiny) -> None:
    first = train(tiny("trainer.max_epochs=1", folder="first"), progress=False)
    head = probe(first.folder, progress=False).head
    words = [f"model.weights={first.checkpoint}", f"task.finetune.head={head}"]
    whole = train(tiny(*words, "optimizer.lr=1e-9", folder="next"), progress=False)
    kept = read_checkpoint(whole.checkpoint).weights["head.weight"]
    torch.testing.assert_close(kept, build(tiny(*words)).model.head.weight, rtol=0, atol=1e-5)
    head.unlink()
    (whole.folder / "results.json").unlink()
    assert resume(whole.folder, progress=False).metrics == whole.metrics


def test_both_heads_of_a_distilled_model_begin_so(tmp_path: Path) -> None:
    model = create_model("vit_mini_distilled_patch4_32", num_classes=3)
    weight, bias = torch.randn(3, model.num_features), torch.randn(3)
    write_head(tmp_path / "h.safetensors", weight, bias, ["a", "b", "c"])
    load_head(model, tmp_path / "h.safetensors", ["c", "a", "b"])
    for head in (model.head, model.head_dist):
        assert torch.equal(head.weight, weight[[2, 0, 1]])
        assert torch.equal(head.bias, bias[[2, 0, 1]])


def test_a_model_that_does_not_say_which_its_head_is(tmp_path: Path) -> None:
    write_head(tmp_path / "h.safetensors", torch.zeros(2, 5), torch.zeros(2), ["a", "b"])
    with pytest.raises(WeightsError, match=r"Linear has no get_classifier\(\)"):
        load_head(torch.nn.Linear(5, 2), tmp_path / "h.safetensors", ["a", "b"])


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    model = create_model("vit_mini_patch4_32", num_classes=2)
    path = tmp_path / "h.safetensors"
    with pytest.raises(WeightsError, match=r"no such head: .*vitkit probe leaves one"):
        load_head(model, path, ["a", "b"])
    write_head(path, torch.zeros(2, 5), torch.zeros(2), ["a", "b"])
    with pytest.raises(WeightsError, match="is a head of 5 features, which VisionTransformer's"):
        load_head(model, path, ["a", "b"])
    with pytest.raises(WeightsError, match="knows no class 'c'"):
        load_head(model, path, ["a", "c"])
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="is no head that vitkit probe left"):
        load_head(model, path, ["a", "b"])
    path.write_bytes(b"x" * 40)
    with pytest.raises(WeightsError, match="is damaged or no head"):
        load_head(model, path, ["a", "b"])
    with pytest.raises(ConfigError, match="zero_head and head exclude each other"):
        load_config([], ["task.finetune.zero_head=true", "task.finetune.head=h.safetensors"])


class _Two(torch.nn.Module):
    """Two classifiers, of which the second has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, 2), torch.nn.Linear(5, 2, bias=False)

    def get_classifier(self) -> tuple[torch.nn.Linear, torch.nn.Linear]:
        return self.first, self.second


def test_a_classifier_without_bias_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    write_head(tmp_path / "h.safetensors", torch.zeros(2, 5), torch.zeros(2), ["a", "b"])
    model = _Two()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"with a bias, which _Two's has not; leave out task"):
        load_head(model, tmp_path / "h.safetensors", ["a", "b"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
