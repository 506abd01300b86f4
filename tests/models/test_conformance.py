"""What every model must do, at a shrunken size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.conftest import TINY
from tests.interrupted import logged_rows
from tests.small_words import pair_run, text_run
from vitkit.app import assemble, train
from vitkit.app.jobs import job_class
from vitkit.config import RunConfig, load_config
from vitkit.models import EncoderDecoder, RecurrentSeq2Seq, create_model, register_model
from vitkit.models.config import CONFIGS
from vitkit.models.presets import CUSTOM, family_of, resolve_name
from vitkit.models.registry import _BUILDERS
from vitkit.training.budget import StepPlan
from vitkit.training.config import OptimizerConfig, ScheduleConfig
from vitkit.training.task import ClassificationTask
from vitkit.training.task_config import ClassificationConfig
from vitkit.weights import read_checkpoint

BATCH, CLASSES = 3, 5


def pictures(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(7))


def words(length: int, vocab: int = 11) -> Callable[[], Tensor]:
    draw = torch.Generator().manual_seed(7)
    return lambda: torch.randint(1, vocab, (BATCH, length), generator=draw.manual_seed(7))


@dataclass(frozen=True)
class Case:
    name: str
    inputs: Callable[[], Tensor]
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: tuple[int, ...] = (BATCH, CLASSES)
    # A shift of all scores of a softmax changes nothing: its gradient is zero by mathematics.
    idle: tuple[str, ...] = ()


SMALL: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
VIT: dict[str, Any] = {**SMALL, "num_classes": CLASSES, "img_size": (8, 12), "in_chans": 3}
CCT: dict[str, Any] = {**VIT, "attn_drop_rate": 0.0, "drop_path_rate": 0.0}
CVT = {**CCT, "patch_size": 4}
HYBRID: dict[str, Any] = {**VIT, "patch_size": 2, "norm_eps": 1e-3}
TEXT: dict[str, Any] = {**SMALL, "vocab_size": 11, "max_len": 9}
PAIRS: dict[str, Any] = {**TEXT, "proj_drop_rate": 0.0, "pos_drop_rate": 0.0}
LSTM: dict[str, Any] = {"vocab_size": 11, "embed_dim": 12, "hidden_dim": 16, "drop_rate": 0.0}
PIXELS = {**SMALL, "num_classes": CLASSES, "img_size": 6, "pos_drop_rate": 0.0}
SCORE = ("seq_pool.score.bias",)

CASES = {
    "vit": Case("vit_tiny_patch4_32", pictures(3, 8, 12), VIT),
    "vit_average": Case("vit_digits", pictures(3, 8, 12), {**VIT, "mlp_layer": "swiglu"}),
    "vit_token_avg": Case(
        "vit_tiny_patch4_32", pictures(3, 8, 12), {**VIT, "global_pool": "token_avg"}
    ),
    "vit_clip": Case(
        "vit_base_patch32_clip_quickgelu_224", pictures(3, 8, 12), {**VIT, "patch_size": 4}
    ),
    "vit_map": Case("vit_so400m_patch14_siglip_224", pictures(3, 8, 12), {**VIT, "patch_size": 4}),
    "vit_rotary": Case(
        "vit_tiny_patch4_32",
        pictures(3, 8, 12),
        {**VIT, "pos_embed": "rotary", "reg_tokens": 2, "qk_norm": True, "init_values": 0.1},
    ),
    "vit_dinov3": Case(
        "vit_small_plus_patch16_dinov3_qkvb", pictures(3, 8, 12), {**VIT, "patch_size": 4}
    ),
    "vit_stem": Case(
        "vit_mini_patch4_32",
        pictures(3, 8, 12),
        {**VIT, "conv_stem": [{"dim": 8, "kernel_size": 2, "norm": False}, {"dim": 8, "pool": 2}]},
    ),
    "vit_relative": Case(
        "vit_mini_patch4_32",
        pictures(3, 8, 12),
        {**VIT, "pos_embed": "relative"},
    ),
    "distilled": Case("vit_mini_distilled_patch4_32", pictures(3, 8, 12), VIT),
    "deit3": Case("deit3_small_patch16_224", pictures(3, 8, 12), {**VIT, "patch_size": 4}),
    "cct": Case("cct_2_3x2_32", pictures(3, 8, 12), CCT, idle=SCORE),
    "cvt": Case("cvt_6_4_32", pictures(3, 8, 12), CVT, idle=SCORE),
    "vit_lite": Case("vit_lite_6_patch4_32", pictures(3, 8, 12), CVT),
    "mixer": Case("mixer_s16_224", pictures(3, 8, 12), HYBRID),
    "convmixer": Case("convmixer_256_8_32", pictures(3, 8, 12), {**HYBRID, "kernel_size": 3}),
    "hybrid": Case(
        "nb03_2mixer_vit",
        pictures(3, 8, 12),
        {
            **HYBRID,
            "blocks": ("conv", "mixer", "attention"),
            "depth": 4,
            "pos_embed": "learn",
            "stem": "convmixer",
            "global_pool": "flatten",
            "head_hidden_dims": (12, 10),
            "mlp_drop_rate": 0.0,
            "mixer_drop_rate": 0.0,
            "attn_drop_rate": 0.0,
            "drop_rate": 0.0,
        },
    ),
    "text": Case("text_mini", words(9), {**TEXT, "num_classes": CLASSES}),
    "text_token": Case(
        "text_mini",
        words(9),
        {**TEXT, "num_classes": CLASSES, "class_token": True, "global_pool": "token"},
    ),
    "text_alibi": Case(
        "text_mini", words(9), {**TEXT, "num_classes": CLASSES, "pos_embed": "alibi"}
    ),
    "text_relative": Case(
        "text_mini", words(9), {**TEXT, "num_classes": CLASSES, "pos_embed": "relative"}
    ),
    "pixels": Case("text_pixels_mini_32", pictures(3, 6, 6), PIXELS),
    "pixels_relative": Case(
        "text_pixels_mini_32", pictures(3, 6, 6), {**PIXELS, "pos_embed": "relative"}
    ),
    "pixels_lra": Case(
        "text_pixels_lra_32",
        pictures(3, 6, 6),
        {**PIXELS, "proj_drop_rate": 0.0, "attn_drop_rate": 0.0},
    ),
    "lm": Case("lm_char_mini", words(9), TEXT, output=(BATCH, 9, 11)),
    "lm_untied": Case(
        "lm_char_mini",
        words(9),
        {**TEXT, "tie_embeddings": False, "pos_embed": "rotary", "num_kv_heads": 1},
        output=(BATCH, 9, 11),
    ),
    "lm_window": Case(
        "lm_char_mini",
        words(9),
        {**TEXT, "pos_embed": "relative", "window": 4},
        output=(BATCH, 9, 11),
    ),
    "lm_recurrent": Case("lstm_music", words(9), LSTM, output=(BATCH, 9, 11)),
    "seq2seq": Case("transformer_tiny", words(9), PAIRS, output=(BATCH, 9, 11)),
    "seq2seq_pre": Case(
        "transformer_base",
        words(9),
        {
            **PAIRS,
            "norm_first": True,
            "final_norm": True,
            "tie_embeddings": False,
            "pos_embed": "relative",
            "mlp_layer": "swiglu",
        },
        output=(BATCH, 9, 11),
    ),
    "seq2seq_learned": Case(
        "transformer_tiny",
        words(9),
        {**PAIRS, "tie_embeddings": False, "pos_embed": "learn"},
        output=(BATCH, 9, 11),
    ),
    "seq2seq_bottleneck": Case("lstm_seq2seq", words(9), LSTM, output=(BATCH, 9, 11)),
    "seq2seq_attention": Case(
        "lstm_seq2seq_attention",
        words(9),
        {**LSTM, "cell": "gru", "depth": 2, "tie_embeddings": False},
        output=(BATCH, 9, 11),
    ),
    "hybrid_recurrent": Case(
        "nb03_2mixer_vit",
        pictures(3, 8, 12),
        {
            **HYBRID,
            "blocks": ("lstm", "attention", "gru", "rnn"),
            "depth": 4,
            "bidirectional": True,
            "attn_drop_rate": 0.0,
            "mlp_drop_rate": 0.0,
            "drop_rate": 0.0,
        },
    ),
    "resnet": Case(
        "resnet20_32", pictures(3, 8, 12), {"depth": 8, "embed_dim": 16, "num_classes": CLASSES}
    ),
    "timm": Case(
        "timm/vit_tiny_patch16_224",
        pictures(3, 32, 32),
        {"num_classes": CLASSES, "img_size": 32, "kwargs": {"depth": 2}},
    ),
    "custom": Case("conforming", pictures(3, 8, 8), {"num_classes": CLASSES}),
}
OURS = [key for key in CASES if key not in ("timm", "custom")]
TRUNKS = [
    key
    for key in OURS
    if key not in ("resnet", "lm_recurrent", "seq2seq_bottleneck", "seq2seq_attention")
]
HEADS = tuple(
    f"{head}.{kind}" for head in ("head", "head_dist", "linear") for kind in ("weight", "bias")
)
CLASSIFIERS = [key for key in OURS if not key.startswith(("lm", "seq2seq"))]
TRANSLATORS = (EncoderDecoder, RecurrentSeq2Seq)


@pytest.fixture(autouse=True)
def custom_model() -> Iterator[None]:
    @register_model("conforming")
    def conforming(num_classes: int, **sizes: Any) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

    yield
    for table in (CUSTOM, _BUILDERS):
        table.pop("conforming", None)


def build(key: str, **more: Any) -> nn.Module:
    """The model of a case with weights far from their initial values."""
    torch.manual_seed(0)
    model = create_model(CASES[key].name, **{**CASES[key].kwargs, **more})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def call(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model of what it takes: a translator gets the same words turned round as targets."""
    out: Tensor = model(inputs, inputs.flip(1)) if isinstance(model, TRANSLATORS) else model(inputs)
    return out


def gradients(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    call(model, inputs).square().sum().backward()
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


def test_every_family_is_here() -> None:
    CUSTOM.setdefault("conforming", "")
    assert {family_of(resolve_name(case.name)) for case in CASES.values()} == set(CONFIGS)


@pytest.mark.parametrize("key", CASES)
def test_shape_and_every_parameter_gets_a_gradient(key: str) -> None:
    case, model = CASES[key], build(key).train()
    inputs = case.inputs()
    assert call(model, inputs).shape == case.output
    found = gradients(model, inputs)
    dead = {
        name for name, _ in model.named_parameters() if not found.get(name, torch.zeros(1)).any()
    }
    assert dead <= set(case.idle)


@pytest.mark.parametrize("key", CASES)
def test_evaluation_is_deterministic_and_images_are_independent(key: str) -> None:
    model, inputs = build(key).eval(), CASES[key].inputs()
    with torch.no_grad():
        whole = call(model, inputs)
        assert torch.equal(whole, call(model, inputs))
        single = torch.cat([call(model, one[None]) for one in inputs])
        changed = inputs.clone()
        changed[0] = changed[1]
        assert torch.equal(call(model, changed)[2], whole[2])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.parametrize("key", CASES)
def test_state_dict_round_trip(key: str) -> None:
    model, inputs = build(key).eval(), CASES[key].inputs()
    torch.manual_seed(5)
    fresh = create_model(CASES[key].name, **CASES[key].kwargs).eval()
    with torch.no_grad():
        assert not torch.allclose(call(fresh, inputs), call(model, inputs))
        fresh.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(call(fresh, inputs), call(model, inputs))


@pytest.mark.parametrize("key", CLASSIFIERS)
def test_reset_classifier(key: str) -> None:
    model, inputs = build(key).eval(), CASES[key].inputs()
    trunk = {k: v.clone() for k, v in model.state_dict().items()}
    model.double().reset_classifier(8)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    assert model(inputs).shape == (BATCH, 8)
    heads = model.get_classifier()
    heads = heads if isinstance(heads, tuple) else (heads,)
    assert model.num_classes == 8 and all(head.out_features == 8 for head in heads)
    for name, value in model.state_dict().items():
        is_head = name.endswith(HEADS)
        assert is_head or torch.equal(value, trunk[name].to(value.dtype))
    model.reset_classifier(0)
    features = model.forward_head(model.forward_features(inputs), pre_logits=True)
    torch.testing.assert_close(model(inputs), features)
    assert features.shape == (BATCH, model.num_features)


@pytest.mark.parametrize("key", CLASSIFIERS)
def test_forward_is_features_then_head(key: str) -> None:
    model, inputs = build(key).eval(), CASES[key].inputs()
    with torch.no_grad():
        parts = model.forward_head(model.forward_features(inputs))
    torch.testing.assert_close(model(inputs), parts, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", TRUNKS)
def test_checkpointing_gives_the_same_gradients(key: str) -> None:
    more = {"attn_drop_rate": 0.2, "drop_path_rate": 0.3}
    model, inputs = build(key, **more).train(), CASES[key].inputs()
    plain = gradients(model, inputs)
    model.set_grad_checkpointing()
    checkpointed = gradients(model, inputs)
    assert set(checkpointed) == set(plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", TRUNKS)
def test_checkpointing_runs_each_block_twice(key: str) -> None:
    model, inputs, ran = build(key).train(), CASES[key].inputs(), []
    for block in next(m for m in model.modules() if isinstance(m, nn.ModuleList)):
        block.register_forward_pre_hook(lambda *_: ran.append(1))
    for enabled, times in ((True, 2), (False, 1)):
        ran.clear()
        model.set_grad_checkpointing(enabled)
        gradients(model, inputs)
        assert len(ran) == times * CASES[key].kwargs["depth"]


@pytest.mark.parametrize("key", [key for key in OURS if key != "resnet"])
def test_undecayed_parameters_exist(key: str) -> None:
    model = build(key)
    names = {name for name, _ in model.named_parameters()}
    undecayed = model.no_weight_decay() & names
    places = ("pos_embed", "_token", "latent", ".table", "tokens.weight", "words.weight")
    positions = {name for name in names if name.endswith(places)}
    assert positions <= undecayed
    assert not any(name.endswith(("qkv.weight", "fc1.weight")) for name in undecayed)


def test_every_undecayed_name_is_a_parameter_of_some_model() -> None:
    """Of the same class, or of one that it comes from."""
    models = [build(key) for key in OURS]
    for model in models:
        named: Any = getattr(model, "no_weight_decay", set)
        alike = [other for other in models if isinstance(model, type(other))]
        known = {name for other in alike for name, _ in other.named_parameters()}
        assert named() <= known, type(model).__name__


TRAINED = {
    "vit": "vit",
    "vit_distilled": "distilled",
    "compact": "cct",
    "hybrid": "hybrid",
    "resnet": "resnet",
    "pixels": "pixels",
    "timm": "timm",
    "custom": "custom",
}
"""Family that reads pictures -> the case of it that is trained."""
TRAINED_ON_WORDS: dict[str, tuple[Callable[..., RunConfig], tuple[str, ...]]] = {
    "lm": (text_run, ()),
    "lm_recurrent": (
        text_run,
        ("model.name=lstm_music", "model.hidden_dim=12", "data.window=16"),
    ),
    "seq2seq": (pair_run, ("data.test=null",)),
    "seq2seq_recurrent": (
        pair_run,
        ("model.name=lstm_seq2seq_attention", "model.hidden_dim=12", "data.test=null"),
    ),
}


def training_of(family: str, folder: Path) -> RunConfig:
    """The config of an epoch of a few steps."""
    short = "trainer.max_epochs=1"
    if family in TRAINED_ON_WORDS:
        make, more = TRAINED_ON_WORDS[family]
        return make(folder, *more, short, recurrent=family.endswith("recurrent"))
    case = CASES[TRAINED[family]]
    usual = [setting for setting in TINY if not setting.startswith("model.")]
    model = [f"model.{key}={json.dumps(value)}" for key, value in case.kwargs.items()]
    size = ["data.img_size=8"] if family == "custom" else []
    classes = f"data.synthetic_classes={CLASSES}"
    name = f"model.name={case.name}"
    return load_config([], [*usual, name, *model, *size, classes, short, f"run.dir={folder}"])


def test_every_family_is_trained() -> None:
    assert {*TRAINED, *TRAINED_ON_WORDS, "text"} == set(CONFIGS)


@pytest.mark.parametrize("family", [*TRAINED, *TRAINED_ON_WORDS])
def test_a_real_training_changes_every_parameter(family: str, tmp_path: Path) -> None:
    config = training_of(family, tmp_path / "run")
    model = job_class(config)(config).model
    result = train(config, progress=False)
    losses = [float(r["train/loss"]) for r in logged_rows(result.folder) if r["train/loss"]]
    assert losses and all(map(math.isfinite, [*losses, result.metrics["val/loss"]]))
    trained = read_checkpoint(result.checkpoint).trained
    still = {name for name, first in model.named_parameters() if torch.equal(trained[name], first)}
    assert still <= set(CASES[TRAINED[family]].idle if family in TRAINED else ())


def test_so_does_one_of_a_classifier_of_texts() -> None:
    """No labelled texts come with vitkit: two batches in their place."""
    model = build("text")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = ClassificationTask(
        model,
        num_classes=CLASSES,
        task=ClassificationConfig(),
        prepare_train=lambda ids, positions, epoch: ids,
        prepare_eval=lambda ids: ids,
        optimizer=OptimizerConfig(lr=1e-2),
        schedule=ScheduleConfig(),
        plan=StepPlan(2, 1),
    )
    batch = (CASES["text"].inputs(), torch.arange(BATCH), torch.arange(BATCH))
    config = load_config([], ["trainer.accelerator=cpu", "trainer.precision=32-true"])
    trainer = assemble.make_trainer(config, max_epochs=1, logger=False, enable_checkpointing=False)
    with assemble.quiet_lightning():
        trainer.fit(task, DataLoader([batch, batch], batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == 2
    for name, value in model.named_parameters():
        assert value.isfinite().all() and not torch.equal(value, before[name]), name
