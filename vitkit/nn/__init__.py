"""The core: tensors in, tensors out. No pictures, no words, no files, no Lightning.

Axes, in every docstring: B batch, N query tokens, M key tokens, H heads, G key/value heads,
D head width, C embedding width. A bool mask's True means "may attend", everywhere.
"""

from vitkit.nn.attention import Attention, KeyValueCache
from vitkit.nn.blocks import (
    Block,
    BlockContext,
    CompactBlock,
    DecoderBlock,
    DropPath,
    LayerCache,
    LayerScale,
    drop_path_ramp,
    is_hooked,
)
from vitkit.nn.direct import direct_calls
from vitkit.nn.dropout import Dropout
from vitkit.nn.foreign import is_timm_attention, is_timm_mlp
from vitkit.nn.functional import attention, attention_kernel, attention_weights
from vitkit.nn.heads import classifier_names, classifiers, pooled_features
from vitkit.nn.lora import LORA_TARGETS, LoraLinear, add_lora, merge_lora, merge_lora_state
from vitkit.nn.masks import causal_mask, combine_masks, padding_mask, window_mask
from vitkit.nn.mixers import ConvMixerBlock, MixerBlock, RecurrentBlock, TwiceActivatedMlp
from vitkit.nn.modes import evaluating
from vitkit.nn.positions import (
    Alibi,
    RelativeBias,
    RelativeBias2d,
    alibi_slopes,
    grid_positions,
    relative_positions,
    resize_offsets,
    resize_position_grid,
    sincos_1d,
    sincos_2d,
)
from vitkit.nn.products import Linear, linear
from vitkit.nn.record import record_attention
from vitkit.nn.recurrent import CELLS, Recurrent, RecurrentState
from vitkit.nn.rotary import CentredRotary2d, Rotary1d, Rotary2d, Rotation
from vitkit.nn.tokenwise import ACTIVATIONS, NORMS, Mlp, SwiGlu, make_activation, make_norm
from vitkit.nn.trunk import GradientCheckpointing, Trunk, encoder_blocks, make_mlp

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "LORA_TARGETS",
    "NORMS",
    "Alibi",
    "Attention",
    "Block",
    "BlockContext",
    "CentredRotary2d",
    "CompactBlock",
    "ConvMixerBlock",
    "DecoderBlock",
    "DropPath",
    "Dropout",
    "GradientCheckpointing",
    "KeyValueCache",
    "LayerCache",
    "LayerScale",
    "Linear",
    "LoraLinear",
    "MixerBlock",
    "Mlp",
    "Recurrent",
    "RecurrentBlock",
    "RecurrentState",
    "RelativeBias",
    "RelativeBias2d",
    "Rotary1d",
    "Rotary2d",
    "Rotation",
    "SwiGlu",
    "Trunk",
    "TwiceActivatedMlp",
    "add_lora",
    "alibi_slopes",
    "attention",
    "attention_kernel",
    "attention_weights",
    "causal_mask",
    "classifier_names",
    "classifiers",
    "combine_masks",
    "direct_calls",
    "drop_path_ramp",
    "encoder_blocks",
    "evaluating",
    "grid_positions",
    "is_hooked",
    "is_timm_attention",
    "is_timm_mlp",
    "linear",
    "make_activation",
    "make_mlp",
    "make_norm",
    "merge_lora",
    "merge_lora_state",
    "padding_mask",
    "pooled_features",
    "record_attention",
    "relative_positions",
    "resize_offsets",
    "resize_position_grid",
    "sincos_1d",
    "sincos_2d",
    "window_mask",
]
