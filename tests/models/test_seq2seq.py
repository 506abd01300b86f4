"""The encoder-decoder: against torch's nn.Transformer and Marian; padding, caches, positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from tests.models.weights import randomized
from vitkit.models import EncoderDecoder, create_model
from vitkit.nn import Attention

LIMIT = 1e-10
"""Of an error over the reference's largest value; the largest measured is 1.4e-14."""
SMALL: dict[str, Any] = {
    "vocab_size": 13,
    "max_len": 12,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}
SCHEMES = ["sincos", "learn", "rotary", "alibi", "relative", "none"]


def texts(length: int, batch: int = 3, seed: int = 2) -> Tensor:
    return torch.randint(1, 13, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor, limit: float = LIMIT) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= limit * expected.abs().max()


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    parts = [ours.q, ours.kv] if ours.is_cross else [ours.qkv]
    theirs.in_proj_weight.data = torch.cat([part.weight.detach() for part in parts])
    theirs.in_proj_bias.data = torch.cat([part.bias.detach() for part in parts])
    theirs.out_proj.load_state_dict(ours.proj.state_dict())


def torchs_transformer(ours: EncoderDecoder, norm_first: bool, final_norm: bool) -> nn.Transformer:
    """nn.Transformer with the weights of ours; its own constructor always has final norms."""
    shape: dict[str, Any] = {"d_model": 24, "nhead": 3, "dim_feedforward": 48, "dropout": 0.0}
    shape |= {"batch_first": True, "norm_first": norm_first}
    norms = [nn.LayerNorm(24) if final_norm else None for _ in range(2)]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**shape), 2, norms[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), 2, norms[1])
    theirs = nn.Transformer(
        24, 3, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
    ).double()
    for mine, other in zip(
        [*ours.encoder, *ours.decoder], [*encoder.layers, *decoder.layers], strict=True
    ):
        other.linear1.load_state_dict(mine.mlp.fc1.state_dict())
        other.linear2.load_state_dict(mine.mlp.fc2.state_dict())
        copy_attention(mine.attn, other.self_attn)
        if hasattr(mine, "cross_attn"):
            copy_attention(mine.cross_attn, other.multihead_attn)
        for name in ("norm1", "norm2", "norm3"):
            if hasattr(mine, name):
                getattr(other, name).load_state_dict(getattr(mine, name).state_dict())
    if final_norm:
        encoder.norm.load_state_dict(ours.norm.state_dict())
        decoder.norm.load_state_dict(ours.decoder_norm.state_dict())
    return theirs


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_equals_torchs_transformer(norm_first: bool, final_norm: bool) -> None:
    ours = randomized(EncoderDecoder(**SMALL, norm_first=norm_first, final_norm=final_norm))
    theirs = torchs_transformer(ours, norm_first, final_norm)
    source, target = texts(9), texts(7, seed=3)
    source[0, 6:], source[1, 2:] = 0, 0
    # torch's masks have the opposite sense.
    padding = source == 0
    tokens = theirs(
        ours.words(source),
        ours.words(target),
        tgt_mask=torch.ones(7, 7, dtype=torch.bool).triu(1),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )
    expected = tokens @ ours.words.tokens.weight.T
    assert_close(ours(source, target), expected)
    weight = torch.randn_like(expected)
    cross = theirs.decoder.layers[1].multihead_attn.in_proj_weight
    pairs = [
        (ours.encoder[0].mlp.fc1.weight, theirs.encoder.layers[0].linear1.weight, slice(None)),
        (ours.encoder[1].attn.qkv.weight, theirs.encoder.layers[1].self_attn.in_proj_weight, ...),
        (ours.decoder[1].cross_attn.q.weight, cross, slice(0, 24)),
        (ours.decoder[1].cross_attn.kv.weight, cross, slice(24, None)),
        # Shared by source, target and output.
        (ours.words.tokens.weight, ours.words.tokens.weight, ...),
    ]
    for mine, other, rows in pairs:
        (found,) = torch.autograd.grad((ours(source, target) * weight).sum(), mine)
        (wanted,) = torch.autograd.grad((expected * weight).sum(), other, retain_graph=True)
        assert_close(found, wanted[rows])


def marian_like(ours: EncoderDecoder) -> MarianMTModel:
    """Hugging Face's Marian with the weights of ours: post-norm, tied, scaled, our sinusoids."""
    config = MarianConfig(
        vocab_size=ours.vocab_size,
        d_model=24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        activation_function="relu",
        scale_embedding=True,
        dropout=0.0,
        max_position_embeddings=ours.max_len,
        pad_token_id=0,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        forced_eos_token_id=None,
    )
    config._attn_implementation = "eager"
    theirs = MarianMTModel(config).double().eval()
    names: dict[str, Tensor] = {}

    def copy_linear(name: str, weight: Tensor, bias: Tensor) -> None:
        names[f"{name}.weight"], names[f"{name}.bias"] = weight, bias

    def copy_parts(name: str, mine: Attention) -> None:
        parts = [mine.q, mine.kv] if mine.is_cross else [mine.qkv]
        weights = torch.cat([part.weight for part in parts]).chunk(3)
        biases = torch.cat([part.bias for part in parts]).chunk(3)
        for letter, weight, bias in zip("qkv", weights, biases, strict=True):
            copy_linear(f"{name}.{letter}_proj", weight, bias)
        copy_linear(f"{name}.out_proj", mine.proj.weight, mine.proj.bias)

    for side, trunk in (("encoder", ours.encoder), ("decoder", ours.decoder)):
        names[f"model.{side}.embed_positions.weight"] = ours.words.pos_embed[0]
        for index, block in enumerate(trunk):
            layer = f"model.{side}.layers.{index}"
            copy_parts(f"{layer}.self_attn", block.attn)
            norms = {"self_attn_layer_norm": block.norm1, "final_layer_norm": block.norm2}
            if side == "decoder":
                copy_parts(f"{layer}.encoder_attn", block.cross_attn)
                norms["encoder_attn_layer_norm"] = block.norm2
                norms["final_layer_norm"] = block.norm3
            for name, norm in norms.items():
                copy_linear(f"{layer}.{name}", norm.weight, norm.bias)
            copy_linear(f"{layer}.fc1", block.mlp.fc1.weight, block.mlp.fc1.bias)
            copy_linear(f"{layer}.fc2", block.mlp.fc2.weight, block.mlp.fc2.bias)
    for name in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"):
        names[f"{name}.weight"] = ours.words.tokens.weight
    names["lm_head.weight"] = ours.words.tokens.weight
    missing, unexpected = theirs.load_state_dict(
        {name: value.detach().clone() for name, value in names.items()}, strict=False
    )
    assert missing == ["final_logits_bias"] and not unexpected
    return theirs


def test_equals_marian() -> None:
    ours = randomized(EncoderDecoder(**SMALL))
    theirs = marian_like(ours)
    source, target = texts(9), texts(7, seed=3)
    source[0, 6:], source[1, 2:] = 0, 0
    found = theirs(source, attention_mask=(source != 0).long(), decoder_input_ids=target).logits
    assert_close(ours(source, target), found)


def test_published_parts() -> None:
    """The paper's sums, part by part: attention, MLP, layers, one matrix of words."""
    for name, width, hidden, total in (
        ("transformer_base", 512, 2048, 63_082_496),
        ("transformer_big", 1024, 4096, 214_245_376),
    ):
        with torch.device("meta"):
            model = create_model(name)
        attention, mlp = 4 * width**2 + 4 * width, 2 * width * hidden + hidden + width
        layers = 6 * (attention + mlp + 4 * width) + 6 * (2 * attention + mlp + 6 * width)
        assert sum(p.numel() for p in model.parameters()) == total == layers + 37_000 * width
        assert model.pos_drop.p == model.decoder[0].mlp.drop2.p == {512: 0.1, 1024: 0.3}[width]
        assert model.decoder[0].attn.attn_drop == 0.0 and model.decoder[0].mlp.drop1 is None
        assert not model.decoder[0].norm_first and isinstance(model.norm, nn.Identity)


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_caches_in_any_chunking_equal_the_full_pass(pos_embed: str) -> None:
    model = randomized(EncoderDecoder(**SMALL, pos_embed=pos_embed, head_dim=8, num_kv_heads=1))
    source, target = texts(9), texts(10, seed=3)
    source[1, 4:] = 0
    full, memory = model(source, target), model.encode(source)
    for chunks in ([10], [1] * 10, [4, 1, 5]):
        for grad in (True, False):
            caches = model.new_caches()
            with torch.set_grad_enabled(grad):
                parts = [model.decode(part, memory, caches) for part in target.split(chunks, dim=1)]
                found = model.forward_head(torch.cat(parts, dim=1))
            assert_close(found, full, 1e-12)


def test_the_memory_is_projected_once() -> None:
    model = randomized(EncoderDecoder(**SMALL))
    calls: list[int] = []
    for block in model.decoder:
        block.cross_attn.kv.register_forward_hook(lambda *_: calls.append(1))
    memory, caches = model.encode(texts(9)), model.new_caches()
    for part in texts(6, seed=3).split(1, dim=1):
        model.decode(part, memory, caches)
    assert len(calls) == len(model.decoder)


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_padding_of_the_source_changes_nothing(pos_embed: str) -> None:
    model = randomized(EncoderDecoder(**SMALL, pos_embed=pos_embed, head_dim=8))
    source, target = texts(6), texts(7, seed=3)
    expected = model(source, target)
    padded = torch.cat([source, torch.zeros(3, 4, dtype=torch.long)], dim=1)
    assert_close(model(padded, target), expected)
    filled = torch.cat([source, texts(4)], dim=1)
    assert_close(model(filled, target, torch.full((3,), 6)), expected)
    assert not torch.allclose(model(filled, target), expected)


@pytest.mark.parametrize("pos_embed", SCHEMES)
def test_the_order_of_words_matters_where_there_are_positions(pos_embed: str) -> None:
    model = randomized(EncoderDecoder(**SMALL, pos_embed=pos_embed, head_dim=8))
    source, target = texts(8), texts(7, seed=3)
    alike = torch.allclose(model(source, target), model(source.roll(1, dims=1), target))
    assert alike == (pos_embed == "none")
    # ALiBi's distances are the same in a mirror.
    mirrored = torch.allclose(model(source, target), model(source.flip(1), target))
    assert mirrored == (pos_embed in ("none", "alibi"))
    # No word sees a later one.
    changed = target.clone()
    changed[:, 4] = 0
    before, after = model(source, target), model(source, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all(dim=-1).any()


def test_untied_models_have_three_matrices() -> None:
    model = EncoderDecoder(**SMALL, tie_embeddings=False, pos_embed="learn")
    names = {"words.tokens.weight", "target_words.tokens.weight", "head.weight"}
    assert names <= set(model.state_dict())
    source, target = texts(5), texts(4, seed=3)
    before = model(source, target)
    nn.init.zeros_(model.target_words.tokens.weight)
    assert not torch.allclose(model(source, target), before)


def test_first_weights() -> None:
    """Words of variance 1 after scaling; Glorot's range for the linear layers."""
    torch.manual_seed(0)
    model = EncoderDecoder(2000, embed_dim=64, depth=1, num_heads=2)
    x = model.words.tokens(torch.arange(2000)) * model.words.scale
    assert x.std().item() == pytest.approx(1.0, rel=0.02)
    weight = model.decoder[0].cross_attn.kv.weight
    limit = (6 / sum(weight.shape)) ** 0.5
    assert 0.95 * limit < weight.abs().max() <= limit
    assert not model.decoder[0].cross_attn.kv.bias.any()


def test_too_long_is_one_clear_error() -> None:
    model = EncoderDecoder(**SMALL)
    with pytest.raises(ValueError, match=r"13 tokens .* at most 12; .*max_len"):
        model(texts(13), texts(3))
    with pytest.raises(ValueError, match="13 tokens"):
        model(texts(3), texts(13))
    caches, memory = model.new_caches(), model.encode(texts(3))
    model.decode(texts(12), memory, caches)
    with pytest.raises(ValueError, match="13 tokens"):
        model.decode(texts(1), memory, caches)
