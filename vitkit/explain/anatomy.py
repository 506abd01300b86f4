"""Where things are in a model of pictures: blocks, attention, the grid, what the head reads.

A model has an anatomy if it is built as vitkit's and timm's Vision Transformers are: a module that
makes tokens of pictures, ``blocks``, ``forward_features``, ``forward_head``. timm is known by its
names, never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitkit.errors import ConfigError, EvaluationError
from vitkit.nn import Attention, is_timm_attention

__all__ = ["Anatomy", "anatomy_of", "chosen_layers", "head_token_names", "hooked"]

EMBED_NAMES = ("patch_embed", "tokenizer", "stem")
READABLE = (
    "vitkit's ViTs (plain, distilled, with a stem), compact Transformers and hybrids, and timm's "
    "VisionTransformer and DeiT"
)


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model that reads pictures as tokens.

    Attributes:
        model: the model.
        embed: makes tokens of pictures.
        blocks: first to last.
        attention: the self attention of those blocks that have any, first to last.
        attention_blocks: numbers of these blocks.
        num_prefix: tokens before the patches: class token, distillation token, registers.
        num_read: prefix tokens that the head reads; 0: it reads the patches.
    """

    model: nn.Module
    embed: nn.Module
    blocks: tuple[nn.Module, ...]
    attention: tuple[nn.Module, ...]
    attention_blocks: tuple[int, ...]
    num_prefix: int
    num_read: int

    @property
    def prefix_names(self) -> tuple[str, ...]:
        """What the tokens before the patches are, in their order."""
        names = head_token_names(self.model)
        return (*names, *(f"register {i + 1}" for i in range(self.num_prefix - len(names))))

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(rows, columns) of the patches of images (B, channels, height, width)."""
        embed: Any = self.embed
        size = (int(images.shape[-2]), int(images.shape[-1]))
        if hasattr(embed, "grid_of"):
            found = embed.grid_of(*size)
        elif getattr(self.model, "dynamic_img_size", False):
            found = embed.dynamic_feat_size(size)
        else:
            found = embed.grid_size
        return int(found[0]), int(found[1])

    def on_grid(self, per_token: Tensor, images: Tensor) -> Tensor:
        """Numbers of all tokens (..., N) -> of the patches (..., rows, columns)."""
        return per_token[..., self.num_prefix :].unflatten(-1, self.grid(images))

    def features(self, images: Tensor) -> Tensor:
        """Images (B, channels, height, width) -> tokens after the last block and norm (B, N, C)."""
        model: Any = self.model
        tokens: Tensor = model.forward_features(images)
        return tokens

    def head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, N, C) -> logits (B, classes), or what the classifier would read."""
        model: Any = self.model
        out: Tensor = model.forward_head(tokens, pre_logits=pre_logits)
        return out

    def attending(self) -> tuple[nn.Module, ...]:
        """The attention layers.

        Raises:
            EvaluationError: there are none that can be read.
        """
        if not self.attention:
            raise EvaluationError(
                f"{type(self.model).__name__} has no attention that can be read; it is read from "
                f"{READABLE}"
            )
        return self.attention

    def all_attending(self, what: str) -> tuple[nn.Module, ...]:
        """The attention layers of a model in which nothing else mixes tokens.

        Args:
            what: needs that.

        Raises:
            EvaluationError: a block mixes tokens in another way, or none has attention.
        """
        layers = self.attending()
        silent = [b for i, b in enumerate(self.blocks) if i not in self.attention_blocks]
        if silent:
            raise EvaluationError(
                f"{what} follows tokens through attention, and {len(silent)} of "
                f"{len(self.blocks)} blocks of this model mix them otherwise "
                f"({type(silent[0]).__name__}); look at its attention maps instead"
            )
        return layers


def anatomy_of(model: nn.Module) -> Anatomy:
    """The parts of a model.

    Raises:
        EvaluationError: it is not built of patches and blocks.
    """
    parts: Any = model
    embed = next((e for name in EMBED_NAMES if (e := getattr(parts, name, None)) is not None), None)
    blocks = getattr(parts, "blocks", None)
    wanted = ("num_prefix_tokens", "forward_features", "forward_head")
    if (
        not isinstance(embed, nn.Module)
        or not isinstance(blocks, nn.ModuleList | nn.Sequential)
        or not all(hasattr(parts, name) for name in wanted)
        or not (hasattr(embed, "grid_of") or hasattr(embed, "grid_size"))
    ):
        raise EvaluationError(
            f"{type(model).__name__} is not built of patches and blocks; what can be looked into: "
            f"{READABLE}"
        )
    found = [_attention_in(block) for block in blocks]
    reads_token = getattr(parts, "global_pool", "") == "token"
    return Anatomy(
        model=model,
        embed=embed,
        blocks=tuple(blocks),
        attention=tuple(layer for layer in found if layer is not None),
        attention_blocks=tuple(i for i, layer in enumerate(found) if layer is not None),
        num_prefix=int(parts.num_prefix_tokens),
        num_read=(1 + (getattr(parts, "dist_token", None) is not None)) if reads_token else 0,
    )


def head_token_names(model: nn.Module) -> list[str]:
    """What the tokens are that a head may read, in their order; registers are none."""
    known = {"cls_token": "class token", "dist_token": "distillation token"}
    return [said for name, said in known.items() if getattr(model, name, None) is not None]


def chosen_layers(count: int, layers: Sequence[int] | None, what: str = "layer") -> list[int]:
    """Indices from 0 up, each once, in the order given; all without any.

    Args:
        count: how many there are.
        layers: some of them; negative ones count from the end.
        what: they are.

    Raises:
        ConfigError: one that does not exist.
    """
    if layers is None:
        return list(range(count))
    for index in layers:
        if not -count <= index < count:
            raise ConfigError(
                f"{what} {index} does not exist; allowed: 0 to {count - 1}, or {-count} to -1 "
                "counted from the end"
            )
    return list(dict.fromkeys(index % count for index in layers))


@contextmanager
def hooked(modules: Sequence[nn.Module], hook: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside, ``hook`` is told the number and the output of each module that runs."""

    def listener(index: int) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: hook(index, output)

    handles = [m.register_forward_hook(listener(i)) for i, m in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attention_in(block: nn.Module) -> nn.Module | None:
    """The self attention of a block, if it has just one that can be read."""
    found = [module for module in block.modules() if _is_readable(module)]
    return found[0] if len(found) == 1 else None


def _is_readable(module: nn.Module) -> bool:
    if isinstance(module, Attention):
        return not module.is_cross
    return is_timm_attention(module) and _is_plain(module)


def _is_plain(module: Any) -> bool:
    """Nothing between the weighted values and the output projection, as newer timms may have."""
    norm = getattr(module, "norm", None)
    return getattr(module, "gate", None) is None and (norm is None or type(norm) is nn.Identity)
