"""Muon: against the closed form of its iteration, torch's own Muon and torch's AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY
from vitkit.app import train
from vitkit.app.build import build
from vitkit.config import RunConfig, load_config
from vitkit.errors import ConfigError
from vitkit.models.registry import create_model
from vitkit.training.config import OptimizerConfig
from vitkit.training.muon import NEWTON_SCHULZ, Muon, orthogonalized
from vitkit.training.optimizers import build_optimizer, parameter_groups
from vitkit.training.task import ClassificationTask
from vitkit.weights import read_checkpoint


def _by_singular_values(matrix: Tensor, steps: int) -> Tensor:
    """The same iteration where it acts: on each singular value alone."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / matrix.norm()
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vt


@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (5, 12)])
@pytest.mark.parametrize("steps", [1, 5])
def test_orthogonalisation_is_a_polynomial_of_the_singular_values(
    shape: tuple[int, int], steps: int
) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    (done,) = orthogonalized([matrix], [[shape[0]]], ns_steps=steps, dtype=torch.float64)
    want = _by_singular_values(matrix, steps) * max(1.0, shape[0] / shape[1]) ** 0.5
    torch.testing.assert_close(done, want, rtol=1e-10, atol=1e-12)


def test_stacked_matrices_are_orthogonalised_one_by_one() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(4, 6), torch.randn(2, 6), torch.randn(2, 6)]
    alone = orthogonalized(parts, [[4], [2], [2]])
    (together,) = orthogonalized([torch.cat(parts)], [[4, 2, 2]])
    torch.testing.assert_close(together, torch.cat(alone))
    (mixed,) = orthogonalized([torch.cat(parts)], [[8]])
    assert not torch.allclose(mixed, together, atol=0.1)


@pytest.mark.parametrize(("momentum", "ns_steps"), [(0.95, 5), (0.4, 5), (0.95, 3)])
def test_a_step_is_torchs_muon_within_its_bfloat16(momentum: float, ns_steps: int) -> None:
    """torch's runs its products in bfloat16, so it is compared in bfloat16 and to its digits."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(16, 24, bias=False), nn.Linear(16, 24, bias=False)
    theirs.load_state_dict(ours.state_dict())
    group = {"params": list(ours.parameters()), "muon": True, "rows": [[24]]}
    usual: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.3}
    usual |= {"momentum": momentum, "ns_steps": ns_steps}
    one = Muon([group], dtype=torch.bfloat16, **usual)
    two = torch.optim.Muon(theirs.parameters(), **usual)
    start = ours.weight.detach().clone()
    for _ in range(3):
        x = torch.randn(8, 16)
        for model, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    moved, apart = (theirs.weight - start).norm(), (ours.weight - theirs.weight).norm()
    assert apart < 0.02 * moved


def test_the_rest_takes_adamws_steps() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    one = Muon(
        [{"params": list(ours.parameters())}], lr=0.1, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-6
    )
    two = torch.optim.AdamW(theirs.parameters(), 0.1, (0.8, 0.9), 1e-6, weight_decay=0.2)
    for _ in range(4):
        x = torch.randn(4, 5)
        for model, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_counted_where_the_kernel_reads_them(fused: bool) -> None:
    """Beside the weights for the fused kernel, which reads them there after a resume too."""
    device = torch.device("meta")
    weight = nn.Parameter(torch.zeros(3, device=device))
    made = Muon([{"params": [weight]}], fused=fused)
    assert made.param_groups[0]["fused"] is fused  # by which torch knows where to load them
    wanted = "meta" if fused else "cpu"
    assert made._steps(weight).device.type == wanted
    made.state[weight]["step"] = torch.tensor(3.0, device="cpu" if fused else "meta")
    if fused:  # as a checkpoint of an earlier version leaves it
        assert made._steps(weight).device.type == "meta"


def _muon_names(model: nn.Module) -> dict[str, list[int]]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, OptimizerConfig(name="muon"))
    assert sorted(names.values()) == sorted(names[id(p)] for g in groups for p in g["params"])
    return {
        names[id(p)]: rows
        for group in groups
        if group.get("muon")
        for p, rows in zip(group["params"], group["rows"], strict=True)
    }


def test_muon_takes_the_hidden_matrices_alone() -> None:
    vit = _muon_names(create_model("vit_mini_patch4_32", depth=1))
    layers = {"attn.qkv": [128] * 3, "attn.proj": [128], "mlp.fc1": [512], "mlp.fc2": [128]}
    assert vit == {f"blocks.0.{name}.weight": rows for name, rows in layers.items()}
    cct = _muon_names(create_model("cct_2_3x2_32", depth=1))
    assert "tokenizer.layers.3.weight" in cct  # its second convolution
    assert not {"tokenizer.layers.0.weight", "head.weight", "pos_embed"} & set(cct)
    text = _muon_names(create_model("text_mini", depth=1, vocab_size=9))
    assert not any("embed" in name or name.startswith("head") for name in text)
    translator = _muon_names(create_model("transformer_tiny", depth=1, vocab_size=9))
    assert translator["decoder.0.cross_attn.kv.weight"] == [128] * 2
    gated = _muon_names(create_model("vit_mini_patch4_32", depth=1, mlp_layer="swiglu"))
    assert len(set(gated["blocks.0.mlp.fc1.weight"])) == 1
    assert len(gated["blocks.0.mlp.fc1.weight"]) == 2
    timm = _muon_names(create_model("timm/vit_tiny_patch16_224", num_classes=3))
    assert timm["blocks.0.attn.qkv.weight"] == [192] * 3
    assert not {"patch_embed.proj.weight", "head.weight"} & set(timm)


def test_layer_decay_shrinks_the_rate_from_block_to_block() -> None:
    model = create_model("vit_mini_patch4_32", depth=3)
    groups = parameter_groups(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates["head.weight"] == rates["fc_norm.bias"] == 1.0
    assert [rates[f"blocks.{i}.attn.qkv.weight"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert rates["pos_embed"] == rates["patch_embed.proj.bias"] == 0.0625


def test_what_stands_before_the_blocks_has_the_lowest_rate_whatever_it_is() -> None:
    pictures = (("vit_stem_mini_32", "patch_embed."), ("cct_2_3x2_32", "tokenizer."))
    for name, stem in (*pictures, ("text_pixels_mini_32", "text.words.")):
        model = create_model(name, depth=2)
        groups = parameter_groups(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
        names = {id(p): name for name, p in model.named_parameters()}
        rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
        assert {rate for key, rate in rates.items() if key.startswith(stem)} == {0.125}
        inside = "text." if stem.startswith("text.") else ""
        assert rates[f"{inside}blocks.0.attn.qkv.weight"] == 0.25
        assert rates[f"{inside}head.weight"] == 1.0


def test_an_embedding_inside_a_block_is_of_the_block() -> None:
    inner = {"blocks": nn.ModuleList([nn.ModuleDict({"patch_embed": nn.Linear(2, 2)})] * 1)}
    model = nn.ModuleDict({**inner, "head": nn.Linear(2, 2)})
    groups = parameter_groups(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates["blocks.0.patch_embed.weight"] == 0.5 and rates["head.weight"] == 1.0


def test_rates_by_layer_need_layers() -> None:
    with pytest.raises(
        ConfigError, match=r"layer_decay: CifarResNet has no blocks that are numbered"
    ):
        parameter_groups(create_model("resnet20_32"), OptimizerConfig(layer_decay=0.5))
    with pytest.raises(ConfigError, match=r"head_lr_factor: Linear does not say which layer"):
        parameter_groups(nn.Linear(2, 2), OptimizerConfig(head_lr_factor=2.0))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The validation loss of a run whose weights hardly leave their start."""
    folder = tmp_path_factory.mktemp("still") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITKIT_RUN_DIR", raising=False)
        words = [*TINY, "optimizer.lr=1e-9", "trainer.max_epochs=1", f"run.dir={folder}"]
        return train(None, words, progress=False).metrics["val/loss"]


@pytest.mark.parametrize(
    ("words", "who"),
    [
        (("adamw", "optimizer.lr=0.01"), "all"),
        (("sgd", "optimizer.lr=0.02"), "all"),
        (("lion", "optimizer.lr=0.002"), "all"),
        (("timm/lamb", "optimizer.lr=0.1"), "all"),
        (("muon", "optimizer.lr=0.01", "optimizer.adamw_lr=0.01"), "all"),
        (("muon", "optimizer.lr=0.05", "optimizer.adamw_lr=1e-9"), "muon"),
        (("muon", "optimizer.lr=1e-9", "optimizer.adamw_lr=0.01"), "others"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_every_optimiser_trains(
    tiny: Callable[..., RunConfig], still: float, words: tuple[str, ...], who: str
) -> None:
    """Better than the weights that it began with, and than the same chance for each class."""
    name, *rates = words
    config = tiny(f"optimizer.name={name}", *rates, "trainer.max_epochs=10")
    model = build(config).model
    start = {key: weight.clone() for key, weight in model.state_dict().items()}
    result = train(config, progress=False)
    assert result.metrics["val/loss"] < 0.9 * min(still, math.log(4))
    after = read_checkpoint(result.checkpoint).trained
    ways = {key: float((weight - start[key]).abs().max()) for key, weight in after.items()}
    hidden = set(_muon_names(model))
    wanted = {"all": set(after), "muon": hidden, "others": set(after) - hidden}[who]
    assert {key for key, way in ways.items() if way > 1e-5} == wanted  # at 1e-9 30 steps are 3e-8


def test_an_unknown_optimiser_of_timm_is_one_line() -> None:
    with pytest.raises(ConfigError, match="timm has no optimiser 'nonsense'"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/nonsense"))


def test_each_optimiser_has_what_is_usual_for_it() -> None:
    adamw = OptimizerConfig()
    assert (adamw.lr, adamw.weight_decay, adamw.betas) == (1e-3, 0.05, (0.9, 0.999))
    muon = OptimizerConfig(name="muon")
    assert (muon.lr, muon.momentum, muon.betas) == (0.02, 0.95, (0.9, 0.95))
    lion = OptimizerConfig(name="lion")
    assert (lion.lr, lion.weight_decay, lion.betas) == (1e-4, 0.5, (0.9, 0.99))
    sgd = OptimizerConfig(name="sgd", weight_decay=1e-4)
    assert (sgd.lr, sgd.weight_decay, sgd.momentum) == (0.1, 1e-4, 0.9)
    # What is given wins, and what a run keeps of it is the same again.
    assert load_config([], ["optimizer.name=muon"]).optimizer == muon
    given = OptimizerConfig(name="muon", lr=0.5)
    assert given.lr == 0.5
    assert OptimizerConfig.model_validate(given.model_dump()) == given


def test_what_timms_optimiser_is_given_it_takes_or_refuses() -> None:
    made = build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/adamw", betas=(0.8, 0.9)))
    assert made.defaults["betas"] == (0.8, 0.9)
    usual = build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/lion"))
    assert tuple(usual.defaults["betas"]) == (0.9, 0.99)  # its own
    with pytest.raises(ConfigError, match=r"optimizer\.betas: timm/sgd has none; leave it out"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/sgd", betas=(0.8, 0.9)))
    with pytest.raises(ConfigError, match=r"timm/sgd refuses its settings: Nesterov"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/sgd", momentum=0.0))
    with pytest.raises(ConfigError, match=r"optimizer\.momentum: timm/adamw has none; leave it"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/adamw", momentum=0.5))
    with pytest.raises(ConfigError, match="timm has no optimiser 'lookahed_adamw'"):
        build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/lookahed_adamw"))
    wrapped = build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="timm/lookahead_adamw"))
    assert type(wrapped).__name__ == "Lookahead"
    # timm's of the same name has the same usual rate.
    assert OptimizerConfig(name="timm/sgd").lr == OptimizerConfig(name="sgd").lr == 0.1


def test_layer_decay_holds_in_a_run(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule moves all rates together: their ratios stay those of the layers."""
    seen: dict[int, dict[str, float]] = {}

    def spy(self: ClassificationTask, *args: object) -> None:
        names = {id(p): name for name, p in self.model.named_parameters()}
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        seen[self.global_step] = {
            names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]
        }

    monkeypatch.setattr(ClassificationTask, "on_train_batch_end", spy)
    train(tiny("optimizer.layer_decay=0.5", "schedule.name=linear"), progress=False)
    assert set(seen) == set(range(1, 10))
    for step in (1, 9):
        rates = seen[step]
        head = rates["head.weight"]
        want = {"blocks.1.mlp.fc1.weight": 0.5, "blocks.0.mlp.fc1.weight": 0.25, "pos_embed": 0.125}
        for name, ratio in want.items():
            assert rates[name] == pytest.approx(ratio * head), (step, name)
    assert seen[8]["head.weight"] < 0.5 * seen[1]["head.weight"]
