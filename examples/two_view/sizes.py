"""Widths and depths of an encoder and its decoder, by the names that published files use."""

from __future__ import annotations

from dataclasses import dataclass

from vitkit.errors import ConfigError

__all__ = ["TOY", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """A ViT-Large encoder with a base decoder, unless told otherwise.

    Attributes:
        enc_embed_dim, enc_depth, enc_num_heads: of the encoder.
        dec_embed_dim, dec_depth, dec_num_heads: of a decoder, or of the fusion over views.
        patch_size: side of a patch in pixels.
        pos_embed: ``RoPE`` and its base (``RoPE100``), or ``cosine`` for a fixed table.
        img_size: (height, width) of the images; only ``cosine`` is bound to it.

    Raises:
        ConfigError: a scheme of positions that does not exist.
    """

    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    patch_size: int = 16
    pos_embed: str = "RoPE100"
    img_size: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        if self.pos_embed != "cosine" and self.rotary_base is None:
            raise ConfigError(
                f"pos_embed {self.pos_embed!r} is unknown; allowed: cosine, or RoPE and its base, "
                "such as RoPE100"
            )

    @property
    def rotary_base(self) -> float | None:
        """Base of the rotary angles; None where positions are a table."""
        name, base = self.pos_embed[:4], self.pos_embed[4:]
        return float(base) if name == "RoPE" and base.isdecimal() and float(base) > 0 else None


TOY = Sizes(96, 3, 4, 96, 3, 4, patch_size=8)
"""Small enough to learn something on a CPU in minutes."""
