"""The named sizes of models of words."""

from __future__ import annotations

from collections.abc import Iterator

from vitkit.models.preset import Kwargs, Preset

__all__ = ["word_presets"]


def word_presets() -> Iterator[tuple[str, Preset]]:
    """(name, preset); some read pictures as words, pixel by pixel."""
    lra: Kwargs = {"img_size": 32, "num_classes": 10, "embed_dim": 128, "depth": 1, "num_heads": 8}
    lra |= {"head_dim": 8, "mlp_ratio": 1.0, "qkv_bias": False, "proj_bias": False}
    lra |= {"head_hidden_dim": 128, "pos_drop_rate": 0.3, "proj_drop_rate": 0.3}
    lra |= {"attn_drop_rate": 0.2}
    doc = "32 px as 1,024 grey tokens: the Transformer of Long Range Arena's Image task"
    yield "text_pixels_lra_32", Preset("pixels", lra, doc)
    mini: Kwargs = {"img_size": 32, "num_classes": 10, "embed_dim": 128, "depth": 2, "num_heads": 4}
    mini |= {"mlp_ratio": 2.0, "pixel_pool": 2, "class_token": False, "global_pool": "avg"}
    doc = "32 px as 256 grey tokens (squares of 2 x 2 pixels): the quick one"
    yield "text_pixels_mini_32", Preset("pixels", mini, doc)
    text: Kwargs = {
        "vocab_size": 256,
        "max_len": 512,
        "num_classes": 2,
        "embed_dim": 128,
        "depth": 4,
    }
    doc = "bytes or characters, 512 tokens, mean pooling"
    text |= {"num_heads": 4, "class_token": False, "global_pool": "avg"}
    yield "text_mini", Preset("text", text, doc)
    char: Kwargs = {"vocab_size": 256, "max_len": 256, "embed_dim": 384, "depth": 6, "num_heads": 6}
    yield "lm_char_small", Preset("lm", char, "GPT-2 style, 256 characters or bytes of context")
    char = {**char, "max_len": 128, "embed_dim": 128, "depth": 4, "num_heads": 4}
    yield "lm_char_mini", Preset("lm", char, "GPT-2 style, 128 characters or bytes: the quick one")
    sizes = {"": (768, 12, 12), "_medium": (1024, 24, 16), "_large": (1280, 36, 20)}
    for size, (embed_dim, depth, num_heads) in {**sizes, "_xl": (1600, 48, 25)}.items():
        trunk: Kwargs = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        gpt2: Kwargs = {"vocab_size": 50257, "max_len": 1024, **trunk}
        yield f"gpt2{size}", Preset("lm", gpt2, f"the shape of GPT-2{size.replace('_', ' ')}")
    yield from _text_pairs()


def _text_pairs() -> Iterator[tuple[str, Preset]]:
    """The lab's recurrent language model (MIT 6.S191), and what translates."""
    lab: Kwargs = {"vocab_size": 83, "embed_dim": 256, "hidden_dim": 1024, "depth": 1}
    doc = "one LSTM layer of 1,024 units: MIT 6.S191's lab on folk tunes, 83 characters"
    yield "lstm_music", Preset("lm_recurrent", {**lab, "cell": "lstm"}, doc)
    base: Kwargs = {"vocab_size": 37000, "max_len": 512, "embed_dim": 512, "depth": 6}
    base |= {"num_heads": 8, "mlp_ratio": 4.0, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1}
    doc = '"Attention Is All You Need", base'
    yield "transformer_base", Preset("seq2seq", base, doc)
    big: Kwargs = {**base, "embed_dim": 1024, "num_heads": 16}
    big |= {"pos_drop_rate": 0.3, "proj_drop_rate": 0.3}
    doc = '"Attention Is All You Need", big, with the dropout of English to German'
    yield "transformer_big", Preset("seq2seq", big, doc)
    tiny: Kwargs = {**big, "vocab_size": 10000, "max_len": 128, "embed_dim": 128, "depth": 4}
    tiny |= {"num_heads": 4, "mlp_ratio": 2.0}
    doc = "4 + 4 layers of width 128: for 30,000 pairs of sentences"
    yield "transformer_tiny", Preset("seq2seq", tiny, doc)
    lstm: Kwargs = {"vocab_size": 10000, "embed_dim": 256, "hidden_dim": 256, "depth": 1}
    lstm |= {"cell": "lstm", "bidirectional": True, "drop_rate": 0.3}
    for suffix, attention in (("", False), ("_attention", True)):
        doc = f"LSTM encoder and decoder {'with' if attention else 'without'} attention"
        kwargs: Kwargs = {**lstm, "attention": attention}
        yield f"lstm_seq2seq{suffix}", Preset("seq2seq_recurrent", kwargs, doc)
