"""The core: tensors in, tensors out. No pictures, no words, no files, no Lightning.

Axes, in every docstring: B batch, N query tokens, M key tokens, H heads, G key/value heads,
D head width, C embedding width. A bool mask's True means "may attend", everywhere.
"""

from vitkit.nn.attention import Attention, KeyValueCache
from vitkit.nn.blocks import (
    ACTIVATIONS,
    NORMS,
    Block,
    BlockContext,
    CompactBlock,
    DecoderBlock,
    DropPath,
    LayerCache,
    LayerScale,
    Mlp,
    SwiGlu,
    drop_path_ramp,
    make_norm,
)
from vitkit.nn.functional import attention, attention_kernel, attention_weights
from vitkit.nn.masks import causal_mask, combine_masks, padding_mask, window_mask
from vitkit.nn.mixers import ConvMixerBlock, MixerBlock, TwiceActivatedMlp
from vitkit.nn.positions import (
    Rotary1d,
    Rotary2d,
    Rotation,
    grid_positions,
    resize_position_grid,
    sincos_1d,
    sincos_2d,
)
from vitkit.nn.record import record_attention
from vitkit.nn.trunk import Trunk, encoder_blocks, make_mlp

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "Attention",
    "Block",
    "BlockContext",
    "CompactBlock",
    "ConvMixerBlock",
    "DecoderBlock",
    "DropPath",
    "KeyValueCache",
    "LayerCache",
    "LayerScale",
    "MixerBlock",
    "Mlp",
    "Rotary1d",
    "Rotary2d",
    "Rotation",
    "SwiGlu",
    "Trunk",
    "TwiceActivatedMlp",
    "attention",
    "attention_kernel",
    "attention_weights",
    "causal_mask",
    "combine_masks",
    "drop_path_ramp",
    "encoder_blocks",
    "grid_positions",
    "make_mlp",
    "make_norm",
    "padding_mask",
    "record_attention",
    "resize_position_grid",
    "sincos_1d",
    "sincos_2d",
    "window_mask",
]
