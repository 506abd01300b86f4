"""The text Transformer: against torch's encoder and GPT-2; padding; lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from vitkit.models import CausalLanguageModel, TextTransformer, create_model, generate
from vitkit.models.words import WordEmbed, real_words
from vitkit.nn import Block, BlockContext

SMALL: dict[str, Any] = {
    "vocab_size": 13,
    "max_len": 10,
    "num_classes": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}
LM: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "num_classes"}
SCHEMES = ["learn", "sincos", "rotary", "alibi", "relative", "none"]
AVERAGE: dict[str, Any] = {"class_token": False, "global_pool": "avg"}


def randomized(model: nn.Module) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.double().eval()


def texts(length: int = 10, batch: int = 3) -> Tensor:
    return torch.randint(1, 13, (batch, length), generator=torch.Generator().manual_seed(2))


def assert_close(found: Tensor, expected: Tensor, limit: float = 1e-9) -> None:
    assert (found - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("act_layer", ["gelu", "relu"])
def test_equals_torchs_encoder(norm_first: bool, act_layer: str) -> None:
    ours = randomized(
        TextTransformer(
            **SMALL, **AVERAGE, norm_first=norm_first, act_layer=act_layer, norm_eps=1e-5, pad_id=0
        )
    )
    layer = nn.TransformerEncoderLayer(
        24, 3, 48, 0.0, act_layer, batch_first=True, norm_first=norm_first
    )
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(24), enable_nested_tensor=False).double()
    for mine, other in zip(ours.blocks, theirs.layers, strict=True):
        for a, b in [(mine.norm1, other.norm1), (mine.norm2, other.norm2)]:
            b.load_state_dict(a.state_dict())
        other.self_attn.in_proj_weight.data = mine.attn.qkv.weight.detach().clone()
        other.self_attn.in_proj_bias.data = mine.attn.qkv.bias.detach().clone()
        other.self_attn.out_proj.load_state_dict(mine.attn.proj.state_dict())
        other.linear1.load_state_dict(mine.mlp.fc1.state_dict())
        other.linear2.load_state_dict(mine.mlp.fc2.state_dict())
    theirs.norm.load_state_dict(ours.norm.state_dict())
    ids = texts()
    ids[0, 6:], ids[1, 3:] = 0, 0
    # torch's mask has the opposite sense.
    x = ours.words.tokens(ids) + ours.words.pos_embed
    x = theirs(x, src_key_padding_mask=ids == 0)
    real = (ids != 0)[:, :, None]
    expected = ours.head((x * real).sum(1) / real.sum(1))
    assert_close(ours(ids), expected)
    weight = torch.randn_like(expected)
    pairs = [(ours.blocks[0].mlp.fc1.weight, theirs.layers[0].linear1.weight)]
    pairs += [(ours.blocks[1].attn.qkv.weight, theirs.layers[1].self_attn.in_proj_weight)]
    for mine, other in pairs:
        (found,) = torch.autograd.grad((ours(ids) * weight).sum(), mine)
        (wanted,) = torch.autograd.grad((expected * weight).sum(), other, retain_graph=True)
        assert_close(found, wanted)


@pytest.mark.parametrize("pos_embed", SCHEMES)
@pytest.mark.parametrize("pool", [{}, AVERAGE, {"global_pool": "avg"}], ids=str)
def test_padding_changes_nothing(pool: dict[str, Any], pos_embed: str) -> None:
    model = randomized(TextTransformer(**SMALL, **pool, pos_embed=pos_embed, pad_id=0))
    short = texts(6)
    padded = torch.cat([short, torch.zeros(3, 4, dtype=torch.long)], dim=1)
    expected = model(short)
    assert_close(model(padded), expected)
    filled = torch.cat([short, texts(4)], dim=1)
    assert_close(model(filled, lengths=torch.full((3,), 6)), expected)
    assert not torch.allclose(model(filled), expected)
    mixed = model(filled, lengths=torch.tensor([6, 10, 2]))
    assert_close(mixed[:1], expected[:1])
    assert_close(mixed[2:], model(filled[2:, :2]))


def test_lengths_or_the_padding_say_what_is_real() -> None:
    ids, lengths = torch.tensor([[5, 0, 3], [4, 0, 0]]), torch.tensor([2, 1])
    by_lengths = [[True, True, False], [True, False, False]]
    for pad_id in (None, 0):
        real = real_words(ids, lengths, pad_id)
        assert real is not None and real.tolist() == by_lengths
    by_padding = real_words(ids, None, 0)
    assert by_padding is not None and by_padding.tolist() == (ids != 0).tolist()
    assert real_words(ids, None, None) is None


def test_a_text_of_nothing_is_finite() -> None:
    for pool in ({}, AVERAGE):
        model = randomized(TextTransformer(**SMALL, **pool, pad_id=0))
        logits = model(torch.zeros(2, 5, dtype=torch.long))
        logits.sum().backward()
        assert logits.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_the_short_last_block_is_exact_under_padding(
    pos_embed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomized(TextTransformer(**SMALL, pos_embed=pos_embed, pad_id=0))
    ids = texts()
    ids[0, 4:] = 0
    expected = model.forward_head(model.forward_features(ids))
    read: list[int] = []
    plain = Block.read

    def noted(self: Block, x: Tensor, count: int, ctx: BlockContext) -> Tensor:
        read.append(count)
        return plain(self, x, count, ctx)

    monkeypatch.setattr(Block, "read", noted)
    assert_close(model(ids), expected, 1e-12)
    assert read == [1]


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_order_matters_where_there_are_positions(pos_embed: str) -> None:
    model = randomized(TextTransformer(**SMALL, **AVERAGE, pos_embed=pos_embed))
    ids = texts()
    alike = torch.allclose(model(ids), model(ids.roll(1, dims=1)))
    assert alike == (pos_embed == "none")
    # ALiBi's distances are the same in a mirror.
    mirrored = torch.allclose(model(ids), model(ids.flip(1)))
    assert mirrored == (pos_embed in ("none", "alibi"))


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_too_long_is_one_clear_error(pos_embed: str) -> None:
    for model in (
        TextTransformer(**SMALL, pos_embed=pos_embed, head_dim=8),
        CausalLanguageModel(**LM, pos_embed=pos_embed),
    ):
        model(texts(10))
        with pytest.raises(ValueError, match=r"11 tokens .* at most 10; .*max_len"):
            model(texts(11))


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"pos_embed": "sine"}, "sine.*alibi"),
        ({"global_pool": "max"}, "max"),
        ({"class_token": False}, "class_token"),
        ({"pos_embed": "rotary", "head_dim": 5}, "5"),
        ({"num_kv_heads": 2}, "num_kv_heads 2"),
    ],
)
def test_constructor_errors(kwargs: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        TextTransformer(**SMALL, **kwargs)


def test_sincos_words_are_the_published_table() -> None:
    words = WordEmbed(5, 6, max_len=4, pos_embed="sincos")
    nn.init.zeros_(words.tokens.weight)
    place, channel = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    angle = place / 10000 ** (2 * (channel // 2) / 6)
    expected = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    torch.testing.assert_close(words(torch.zeros(1, 4, dtype=torch.long))[0], expected)


GPT2_NAMES = {
    "transformer.wte.weight": "words.tokens.weight",
    "transformer.wpe.weight": "words.pos_embed",
    "transformer.ln_f.": "norm.",
    "transformer.h.": "blocks.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".attn.c_attn.": ".attn.qkv.",
    ".attn.c_proj.": ".attn.proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def from_gpt2(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's names and layouts to ours; its Conv1D weights are (in, out)."""
    mapped = {}
    for key, value in values.items():
        if key == "lm_head.weight":
            continue  # tied
        turned = value.T if ".c_" in key and key.endswith("weight") else value
        for old, new in GPT2_NAMES.items():
            key = key.replace(old, new)
        mapped[key] = turned[None] if key == "words.pos_embed" else turned
    return mapped


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=13,
        n_positions=10,
        n_embd=24,
        n_layer=2,
        n_head=3,
        bos_token_id=0,
        eos_token_id=0,
    )
    config._attn_implementation = "eager"
    return randomized(GPT2LMHeadModel(config))


@pytest.fixture
def like_gpt2(gpt2: GPT2LMHeadModel) -> CausalLanguageModel:
    ours = CausalLanguageModel(**{**LM, "mlp_ratio": 4.0}).double().eval()
    ours.load_state_dict(from_gpt2(gpt2.state_dict()), strict=True)
    return ours


def test_equals_gpt2(gpt2: GPT2LMHeadModel, like_gpt2: CausalLanguageModel) -> None:
    ids = texts()
    expected, found = gpt2(ids).logits, like_gpt2(ids)
    assert_close(found, expected)
    gpt2.zero_grad()
    for logits in (expected, found):
        # Not GPT-2's own loss, which is float32.
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    wanted = from_gpt2({key: p.grad for key, p in gpt2.named_parameters()})
    got = {key: p.grad for key, p in like_gpt2.named_parameters()}
    assert set(wanted) == set(got)
    for key, value in wanted.items():
        assert_close(got[key], value)


def test_generates_what_gpt2_generates(
    gpt2: GPT2LMHeadModel, like_gpt2: CausalLanguageModel
) -> None:
    ids = texts(3)
    theirs = gpt2.generate(
        ids, max_new_tokens=7, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert torch.equal(generate(like_gpt2, ids, 7, temperature=0.0), theirs)


@pytest.mark.parametrize("pos_embed", SCHEMES)
@pytest.mark.parametrize("num_kv_heads", [3, 1])
def test_caches_in_any_chunking_equal_the_full_pass(pos_embed: str, num_kv_heads: int) -> None:
    model = randomized(
        CausalLanguageModel(**LM, pos_embed=pos_embed, num_kv_heads=num_kv_heads, qk_norm=True)
    )
    ids = texts()
    full = model(ids)
    for chunks in ([10], [1] * 10, [4, 1, 5], [2, 7, 1]):
        for grad in (True, False):
            caches = model.new_caches()
            with torch.set_grad_enabled(grad):
                parts = [model(part, caches) for part in ids.split(chunks, dim=1)]
            assert_close(torch.cat(parts, dim=1), full, 1e-12)
    with pytest.raises(ValueError, match="11 tokens"):
        model(texts(1), caches)


def test_no_word_sees_a_later_one() -> None:
    model, ids = randomized(CausalLanguageModel(**LM)), texts()
    changed = ids.clone()
    changed[:, 6] = 0
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(dim=-1).any()


def test_untied_output_and_the_start_of_gpt2() -> None:
    tied, untied = CausalLanguageModel(**LM), CausalLanguageModel(**LM, tie_embeddings=False)
    assert "head.weight" in untied.state_dict() and "head.weight" not in tied.state_dict()
    model = create_model("lm_char_small")
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].mlp.fc2.weight.std().item() == pytest.approx(0.02 / 12**0.5, rel=0.05)
