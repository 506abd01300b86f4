"""Any list of blocks over patches: attention, MLP-Mixer's, ConvMixer's, recurrent, in any order.

``blocks=("mixer",)`` is MLP-Mixer, ``("conv",)`` ConvMixer, ``("lstm",)`` an LSTM that reads the
patches row by row, ``("mixer", "mixer", "attention")`` a hybrid. A new kind of block is a
function, a line of :data:`BLOCKS`, its name in ``vitkit.models.picture_config.BLOCK_KINDS``, and a
field of :class:`BlockPlan` for what no other kind reads.

Sources: Tolstikhin et al., "MLP-Mixer", arXiv 2105.01601; Trockman & Kolter, "Patches are all you
need?", arXiv 2201.09792; I. Sobh, "Transformers: from NLP to CV" and its four notebooks, whose
models are the presets ``nb01_*`` to ``nb04_*``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, pairwise

import torch
from torch import Tensor, nn

from vitkit.models.first_weights import init_glorot_weights, make_head
from vitkit.models.options import check_option
from vitkit.models.patches import PatchEmbed
from vitkit.nn import (
    CELLS,
    Attention,
    Block,
    BlockContext,
    ConvMixerBlock,
    Dropout,
    GradientCheckpointing,
    MixerBlock,
    Mlp,
    RecurrentBlock,
    Trunk,
    TwiceActivatedMlp,
    drop_path_ramp,
    make_activation,
    make_norm,
    sincos_2d,
)

__all__ = ["BLOCKS", "BlockPlan", "ConvMixerStem", "HybridClassifier"]

POOLS = ("avg", "max", "flatten")
POSITIONS = ("none", "learn", "sincos2d")
STEMS = ("patch", "convmixer")


@dataclass(frozen=True)
class BlockPlan:
    """What the blocks of a model are built from; each kind reads what it needs.

    Fields are named and explained as the arguments of :class:`HybridClassifier`.
    """

    embed_dim: int
    num_tokens: int
    num_heads: int
    head_dim: int | None
    qkv_bias: bool
    mlp_dim: int
    mlp_act_last: bool
    tokens_mlp_dim: int
    channels_mlp_dim: int
    shared_norm: bool
    kernel_size: int
    recurrent_dim: int
    bidirectional: bool
    attn_drop: float
    proj_drop: float
    mlp_drop: float
    mixer_drop: tuple[float, float]
    act_layer: str
    norm_eps: float
    bn_eps: float
    bn_momentum: float


def attention_block(plan: BlockPlan, drop_path: float) -> nn.Module:
    """The ViT's block."""
    mlp = TwiceActivatedMlp if plan.mlp_act_last else Mlp
    return Block(
        plan.embed_dim,
        Attention(
            plan.embed_dim,
            plan.num_heads,
            head_dim=plan.head_dim,
            qkv_bias=plan.qkv_bias,
            attn_drop=plan.attn_drop,
            proj_drop=plan.proj_drop,
        ),
        mlp(plan.embed_dim, plan.mlp_dim, act_layer=plan.act_layer, drop=plan.mlp_drop),
        norm_layer=make_norm(eps=plan.norm_eps),
        drop_path=drop_path,
    )


def mixer_block(plan: BlockPlan, drop_path: float) -> nn.Module:
    """MLP-Mixer's block."""
    return MixerBlock(
        plan.embed_dim,
        plan.num_tokens,
        tokens_dim=plan.tokens_mlp_dim,
        channels_dim=plan.channels_mlp_dim,
        shared_norm=plan.shared_norm,
        norm_layer=make_norm(eps=plan.norm_eps),
        act_layer=plan.act_layer,
        drop=plan.mixer_drop,
        drop_path=drop_path,
    )


def conv_block(plan: BlockPlan, drop_path: float) -> nn.Module:
    """ConvMixer's block."""
    return ConvMixerBlock(
        plan.embed_dim,
        kernel_size=plan.kernel_size,
        act_layer=plan.act_layer,
        bn_eps=plan.bn_eps,
        bn_momentum=plan.bn_momentum,
        drop_path=drop_path,
    )


def recurrent_block(plan: BlockPlan, drop_path: float, cell: str) -> nn.Module:
    """A recurrent layer and an MLP, as wide as that behind attention."""
    return RecurrentBlock(
        plan.embed_dim,
        hidden_dim=plan.recurrent_dim,
        cell=cell,
        bidirectional=plan.bidirectional,
        mlp_dim=plan.mlp_dim,
        norm_layer=make_norm(eps=plan.norm_eps),
        act_layer=plan.act_layer,
        drop=plan.proj_drop,
        drop_path=drop_path,
    )


BLOCKS: dict[str, Callable[[BlockPlan, float], nn.Module]] = {
    "attention": attention_block,
    "mixer": mixer_block,
    "conv": conv_block,
    **{cell: partial(recurrent_block, cell=cell) for cell in CELLS},
}
"""The kinds of block: from what a model knows and a drop-path rate to a block."""


class ConvMixerStem(PatchEmbed):
    """Patches with ConvMixer's tail: projection, activation, BatchNorm.

    Args:
        img_size, patch_size, in_chans, embed_dim: as in :class:`PatchEmbed`.
        act_layer: activation.
        bn_eps, bn_momentum: of the BatchNorm; the momentum is the new batch's share.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        *,
        in_chans: int = 3,
        embed_dim: int = 256,
        act_layer: str = "gelu",
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.act = make_activation(act_layer)
        self.norm = nn.BatchNorm1d(embed_dim, eps=bn_eps, momentum=bn_momentum)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, channels, height, width) -> tokens (B, N, C), row by row, and their grid."""
        tokens, grid = super().forward(images)
        return self.norm(self.act(tokens).transpose(1, 2)).transpose(1, 2), grid


class HybridClassifier(GradientCheckpointing):
    """Patches, a list of blocks, pooling, a head.

    Args:
        img_size: (height, width) in pixels, or one number.
        patch_size: pixels a side of a patch, or a pair.
        in_chans: channels of the pictures.
        num_classes: classes of the head; 0 leaves it out.
        blocks: kinds of the blocks in their order, keys of :data:`BLOCKS`.
        depth: number of blocks; the list is repeated to reach it. None: as many as listed.
        embed_dim: C.
        num_heads, head_dim, qkv_bias: of attention, see :class:`vitkit.nn.Attention`.
        mlp_ratio: hidden width of the MLP behind attention, over C.
        mlp_act_last: the activation behind that MLP's second layer too (Keras' ViT example).
        tokens_mlp_dim: hidden width of a mixer's MLP over tokens; C / 2 unless given.
        channels_mlp_dim: hidden width of a mixer's MLP over channels; C x mlp_ratio unless given.
        shared_norm: one norm in a mixer instead of two (Keras' MLP-Mixer example).
        kernel_size: side of a conv block's kernel in tokens.
        recurrent_dim: width of a recurrent block's state, in each direction; C unless given.
        bidirectional: recurrent blocks read from both ends.
        stem: ``patch`` (a bare projection) or ``convmixer`` (activation and BatchNorm behind it).
        pos_embed: ``none``, ``learn`` or ``sincos2d`` (fixed).
        global_pool: ``avg``, ``max``, or ``flatten`` (all tokens side by side).
        final_norm: norm after the blocks.
        head_hidden_dims: widths of hidden layers in the head, each with activation and dropout.
        drop_rate: dropout before the head and behind each of its hidden layers.
        pos_drop_rate: dropout after the positions.
        proj_drop_rate: dropout after attention's projection and in all MLPs.
        attn_drop_rate: dropout of the attention weights.
        mlp_drop_rate: dropout in the MLP behind attention; ``proj_drop_rate`` unless given.
        mixer_drop_rate: dropout behind each MLP of a mixer, and none inside; unless given,
            ``proj_drop_rate`` in both places, as in timm.
        drop_path_rate: stochastic depth of the last block; the first has 0.
        act_layer: ``gelu``, ``gelu_tanh``, ``quick_gelu``, ``relu``, ``silu``, everywhere.
        norm_eps: epsilon of the LayerNorms.
        bn_eps, bn_momentum: of the BatchNorms; the momentum is the new batch's share.

    Raises:
        ValueError: an unknown option, an empty list of blocks, or a size that the patch does not
            divide.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        patch_size: int | tuple[int, int] = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        blocks: Sequence[str] = ("mixer", "attention"),
        depth: int | None = None,
        embed_dim: int = 128,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        mlp_act_last: bool = False,
        tokens_mlp_dim: int | None = None,
        channels_mlp_dim: int | None = None,
        shared_norm: bool = False,
        kernel_size: int = 5,
        recurrent_dim: int | None = None,
        bidirectional: bool = False,
        stem: str = "patch",
        pos_embed: str = "none",
        global_pool: str = "avg",
        final_norm: bool = True,
        head_hidden_dims: Sequence[int] = (),
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        mlp_drop_rate: float | None = None,
        mixer_drop_rate: float | None = None,
        drop_path_rate: float = 0.0,
        act_layer: str = "gelu",
        norm_eps: float = 1e-6,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_option("stem", stem, STEMS)
        check_option("pos_embed", pos_embed, POSITIONS)
        check_option("global_pool", global_pool, POOLS)
        kinds = _kinds(blocks, depth)
        self.num_classes, self.in_chans, self.embed_dim = num_classes, in_chans, embed_dim
        self.global_pool, self.num_prefix_tokens = global_pool, 0
        self.stem: PatchEmbed
        if stem == "patch":
            self.stem = PatchEmbed(img_size, patch_size, in_chans=in_chans, embed_dim=embed_dim)
        else:
            self.stem = ConvMixerStem(
                img_size,
                patch_size,
                in_chans=in_chans,
                embed_dim=embed_dim,
                act_layer=act_layer,
                bn_eps=bn_eps,
                bn_momentum=bn_momentum,
            )
        self.pos_embed: nn.Parameter | Tensor | None
        self._make_positions(pos_embed)
        self.pos_drop = Dropout(pos_drop_rate)
        mlp_dim = int(embed_dim * mlp_ratio)
        plan = BlockPlan(
            embed_dim=embed_dim,
            num_tokens=self.stem.num_patches,
            num_heads=num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            mlp_dim=mlp_dim,
            mlp_act_last=mlp_act_last,
            tokens_mlp_dim=embed_dim // 2 if tokens_mlp_dim is None else tokens_mlp_dim,
            channels_mlp_dim=mlp_dim if channels_mlp_dim is None else channels_mlp_dim,
            shared_norm=shared_norm,
            kernel_size=kernel_size,
            recurrent_dim=embed_dim if recurrent_dim is None else recurrent_dim,
            bidirectional=bidirectional,
            attn_drop=attn_drop_rate,
            proj_drop=proj_drop_rate,
            mlp_drop=proj_drop_rate if mlp_drop_rate is None else mlp_drop_rate,
            mixer_drop=(proj_drop_rate, proj_drop_rate)
            if mixer_drop_rate is None
            else (0.0, mixer_drop_rate),
            act_layer=act_layer,
            norm_eps=norm_eps,
            bn_eps=bn_eps,
            bn_momentum=bn_momentum,
        )
        rates = drop_path_ramp(drop_path_rate, len(kinds))
        self.blocks = Trunk(
            BLOCKS[kind](plan, rate) for kind, rate in zip(kinds, rates, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm else nn.Identity()
        self.head_drop = Dropout(drop_rate)
        pooled = embed_dim * self.stem.num_patches if global_pool == "flatten" else embed_dim
        self.head_hidden = nn.Sequential()
        for before, after in pairwise([pooled, *head_hidden_dims]):
            self.head_hidden.extend(
                [nn.Linear(before, after), make_activation(act_layer), Dropout(drop_rate)]
            )
        self.num_features = head_hidden_dims[-1] if head_hidden_dims else pooled
        self.head = make_head(self.num_features, num_classes)
        self.init_weights()

    @property
    def patch_embed(self) -> PatchEmbed:
        """The stem, by timm's name for what makes tokens of pictures."""
        return self.stem

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens after the last block and norm: (B, N, C)."""
        x, grid = self.stem(images)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        features: Tensor = self.norm(self.blocks(self.pos_drop(x), BlockContext(grid)))
        return features

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, N, C) -> logits (B, num_classes), or what the classifier would read."""
        x = self.head_hidden(self.head_drop(self.pool(tokens)))
        return x if pre_logits else self.head(x)

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> one vector an image: (B, C), or (B, N C) where they are flattened."""
        if self.global_pool == "flatten":
            return tokens.flatten(1)
        return tokens.mean(dim=1) if self.global_pool == "avg" else tokens.amax(dim=1)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer for another number of classes; 0 leaves it out."""
        self.num_classes = num_classes
        like, head = self.stem.proj.weight, make_head(self.num_features, num_classes)
        init_glorot_weights(head)
        self.head = head.to(like.device, like.dtype)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves alone, besides biases and norms."""
        return {"pos_embed"}

    def init_weights(self) -> None:
        """Glorot's uniform weights and zero biases.

        Convolutions of ConvMixer keep torch's own, as in its published code.
        """
        self.apply(init_glorot_weights)
        if type(self.stem) is PatchEmbed:  # a linear layer over the pixels of a patch
            nn.init.xavier_uniform_(self.stem.proj.weight.flatten(1))
            assert self.stem.proj.bias is not None
            nn.init.zeros_(self.stem.proj.bias)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _make_positions(self, kind: str) -> None:
        if kind == "learn":
            self.pos_embed = nn.Parameter(torch.zeros(1, self.stem.num_patches, self.embed_dim))
        elif kind == "sincos2d":
            table = sincos_2d(self.stem.grid_size, self.embed_dim)[None]
            self.register_buffer("pos_embed", table, persistent=False)
        else:
            self.pos_embed = None


def _kinds(blocks: Sequence[str], depth: int | None) -> list[str]:
    """The kind of each block, the list repeated until there are ``depth``."""
    if not blocks or isinstance(blocks, str):
        raise ValueError(f"blocks {blocks!r}; give a list of {', '.join(map(repr, BLOCKS))}")
    for kind in blocks:
        check_option("blocks", kind, BLOCKS)
    return list(blocks) if depth is None else list(islice(cycle(blocks), depth))
