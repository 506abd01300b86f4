"""Fine-tuning: each mode trains what it says and nothing else, in whole runs too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import vitkit
from vitkit.app import evaluate, train
from vitkit.app.build import build, build_from_checkpoint
from vitkit.config import RunConfig, load_config
from vitkit.errors import ConfigError
from vitkit.models import create_model
from vitkit.nn import LoraLinear
from vitkit.training.config import OptimizerConfig
from vitkit.training.finetune import adapt, freeze_batch_norm_statistics
from vitkit.training.optimizers import parameter_groups
from vitkit.training.task_config import FinetuneConfig
from vitkit.weights import read_checkpoint

Tiny = Callable[..., RunConfig]
SMALL: dict[str, Any] = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 3}
SMALL |= {"num_heads": 2, "num_classes": 3}


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def adapted(**settings: Any) -> nn.Module:
    return adapt(create_model("vit_tiny_patch4_32", **SMALL), FinetuneConfig(**settings))


def test_each_mode_trains_its_part_and_the_head() -> None:
    everything = trained(create_model("vit_tiny_patch4_32", **SMALL))
    head = {"head.weight", "head.bias"}
    assert trained(adapted()) == everything
    assert trained(adapted(mode="head")) == head
    biases = {name for name in everything if name.endswith("bias")}
    assert trained(adapted(mode="bias")) == biases | head
    last = {n for n in everything if n.startswith(("blocks.2.", "norm.", "head."))}
    assert trained(adapted(mode="partial", last_blocks=1)) == last
    lora = trained(adapted(mode="lora", targets=("q", "fc1")))
    assert lora - head == {n for n in lora if "lora_" in n} and head <= lora
    assert {n.split(".lora")[0].rpartition(".")[2] for n in lora - head} == {"qkv", "fc1"}
    assert trained(adapted(freeze_patch_embed=True)) == {
        name for name in everything if not name.startswith("patch_embed.")
    }


@pytest.mark.parametrize(
    ("name", "part"), [("cct_2_3x2_32", "tokenizer."), ("nb04_convmixer", "stem.")]
)
def test_the_patch_embedding_of_other_families_is_frozen_too(name: str, part: str) -> None:
    model = create_model(name)
    adapt(model, FinetuneConfig(freeze_patch_embed=True))
    frozen = {n for n, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(part)} != set()


def test_a_head_of_zeros_gives_equal_logits() -> None:
    model = adapted(zero_head=True)
    assert not model(torch.randn(2, 3, 8, 8)).any()


def test_distilled_heads_and_timms_are_known() -> None:
    distilled = create_model("vit_mini_distilled_patch4_32", **SMALL)
    names = trained(adapt(distilled, FinetuneConfig(mode="head")))
    assert names == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    theirs = create_model("timm/vit_tiny_patch16_224", num_classes=3, kwargs={"depth": 2})
    names = trained(adapt(theirs, FinetuneConfig(mode="partial", last_blocks=1)))
    assert {name.split(".")[0] for name in names} == {"blocks", "norm", "head"}
    assert all(name.startswith("blocks.1.") for name in names if name.startswith("blocks"))


def test_what_was_frozen_stays_frozen() -> None:
    stem = [{"dim": 8, "kernel_size": 2, "norm": False}, {"dim": 8, "pool": 2}]
    for mode in ("full", "bias"):
        model = create_model("vit_tiny_patch4_32", **SMALL, conv_stem=stem, whiten_stem=True)
        names = trained(adapt(model, FinetuneConfig(mode=mode)))
        assert not any(name.startswith("patch_embed.layers.0.conv") for name in names)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = create_model("vit_tiny_patch4_32", **SMALL, conv_stem=[{"dim": 8, "pool": 2}])
    adapt(model, FinetuneConfig(mode="head"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    freeze_batch_norm_statistics(model)
    model(torch.randn(4, 3, 8, 8))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training and model.head.training


def test_the_head_may_have_a_rate_of_its_own() -> None:
    model = create_model("vit_tiny_patch4_32", **SMALL)
    config = OptimizerConfig(lr=0.1, head_lr_factor=10.0, layer_decay=0.5, weight_decay=0.0)
    rates = {id(p): g["lr"] for g in parameter_groups(model, config) for p in g["params"]}
    assert rates[id(model.head.weight)] == rates[id(model.head.bias)] == pytest.approx(1.0)
    assert rates[id(model.norm.weight)] == pytest.approx(0.1)
    assert rates[id(model.blocks[2].attn.qkv.weight)] == pytest.approx(0.05)


@pytest.mark.parametrize("mode", ["head", "lora", "partial", "bias"])
def test_a_run_changes_what_its_mode_names(tiny: Tiny, mode: str) -> None:
    start = train(tiny("trainer.max_epochs=1", folder="start"))
    config = tiny(
        f"model.weights={start.checkpoint}",
        f"task.finetune.mode={mode}",
        "task.finetune.last_blocks=1",
        "optimizer.name=muon",
        folder="tuned",
    )
    names = trained(build(config).model)
    result = train(config)
    before = read_checkpoint(start.checkpoint).trained
    after = read_checkpoint(result.checkpoint).trained
    changed = {k for k, v in after.items() if k not in before or not torch.equal(v, before[k])}
    assert changed == names
    assert evaluate(result.folder).metrics["test/acc"] == result.metrics["test/acc"]


def test_adapters_are_merged_where_a_checkpoint_is_used(tiny: Tiny) -> None:
    result = train(tiny("task.finetune.mode=lora", "optimizer.lr=0.1"))
    checkpoint = read_checkpoint(result.checkpoint)
    model, _, _ = build_from_checkpoint(checkpoint)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())
    assert set(model.state_dict()) == set(build(tiny(folder="plain")).model.state_dict())
    assert any(name.endswith("lora_a") for name in checkpoint.trained)
    assert vitkit.load(result.folder) is not None


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("task.finetune.alpha=3.0", "task.finetune.rank=2"),
        ("task.finetune.targets=[k, fc1]", "task.finetune.alpha=40.0"),
        ("ema.enabled=true", "ema.decay=0.5"),
    ],
    ids=["usual", "alpha and rank", "targets", "averaged"],
)
def test_the_merged_model_is_the_one_that_was_trained(tiny: Tiny, more: tuple[str, ...]) -> None:
    """In training it was validated with its adapters beside the weights."""
    words = ("task.finetune.mode=lora", "optimizer.lr=0.1", "data.val_fraction=0.5")
    result = train(tiny(*words, *more))
    merged = evaluate(result.folder, split="val", progress=False)
    assert merged.metrics["val/loss"] == pytest.approx(result.metrics["val/loss"], rel=1e-5)
    checkpoint = read_checkpoint(result.checkpoint)
    model, preprocessing, _ = build_from_checkpoint(checkpoint)
    images = preprocessing(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    kept = {n: w for n, w in (checkpoint.averaged or checkpoint.trained).items() if "lora" not in n}
    with torch.no_grad():
        told = model(images)
        model.load_state_dict(kept)
        assert (model(images) - told).abs().max() > 0.01  # the adapters count


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "partial", "last_blocks": 9}, "given 9, the model has 3"),
        ({"mode": "lora", "targets": ()}, "allowed: some of q, k, v"),
    ],
)
def test_what_cannot_be_done_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        adapted(**settings)


def test_models_without_parts_are_told_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    for mode in ("head", "partial", "bias"):
        with pytest.raises(ConfigError, match=r"has no get_classifier\(\)"):
            adapt(model, FinetuneConfig(mode=mode))
    resnet = create_model("resnet20_32", num_classes=3)
    with pytest.raises(ConfigError, match="has no list of blocks"):
        adapt(resnet, FinetuneConfig(mode="partial"))
    with pytest.raises(ConfigError, match="has no layer for LoRA"):
        adapt(resnet, FinetuneConfig(mode="lora"))
    with pytest.raises(ConfigError, match="has no patch embedding"):
        adapt(resnet, FinetuneConfig(freeze_patch_embed=True))


def test_the_mode_alone_is_enough() -> None:
    assert load_config([], ["task.finetune=lora"]).task.finetune.mode == "lora"
