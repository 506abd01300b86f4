"""Low-rank adapters for the core's linear layers, and merging them back.

Source: Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn.attention import Attention
from vitkit.nn.foreign import is_timm_attention, is_timm_mlp
from vitkit.nn.heads import classifiers
from vitkit.nn.products import Linear, linear
from vitkit.nn.tokenwise import Mlp, SwiGlu

__all__ = ["LORA_TARGETS", "LoraLinear", "add_lora", "merge_lora", "merge_lora_state"]

LORA_TARGETS = ("q", "k", "v", "proj", "fc1", "fc2")
"""Layers that may be adapted: the three parts of ``qkv``, the output projection, the MLP's two."""


Place = tuple[str, list[tuple[int, int]] | None]
"""A layer's attribute, and (first row, rows) of each part that is adapted; None: one for all."""


class LoraLinear(nn.Linear):
    """A frozen linear layer plus a trained product of two thin matrices.

    ``weight`` and ``bias`` keep their names, so that the layer loads what the plain one did.

    Args:
        layer: to take the place of; its parameters are taken over, not copied.
        rank: r, inner width of each product.
        alpha: the product is scaled by alpha / r.
        parts: (first row, number of rows) of each group of outputs with a product of its own;
            None: one product for all outputs.

    Attributes:
        lora_a: (parts, r, in_features), small random values.
        lora_b: for each part (rows, r), zeros: the layer begins as the plain one.
    """

    def __init__(
        self,
        layer: nn.Linear,
        rank: int,
        alpha: float,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        weight = layer.weight
        with torch.device("meta"):  # its own values would be thrown away
            super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)
        self.parts = [(0, layer.out_features)] if parts is None else list(parts)
        self.scale = alpha / rank
        shape = (len(self.parts), rank, layer.in_features)
        self.lora_a = nn.Parameter(weight.new_empty(shape))
        nn.init.kaiming_uniform_(self.lora_a.flatten(0, 1), a=math.sqrt(5))
        self.lora_b = nn.ParameterList(
            [nn.Parameter(weight.new_zeros(rows, rank)) for _, rows in self.parts]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        rows = x.flatten(0, -2)
        inner = linear(rows, self.lora_a.flatten(0, 1))
        # One product for all parts, added as it is made: the outputs are the largest tensors here.
        out = torch.addmm(linear(rows, self.weight, self.bias), inner, self._up().t())
        return out.view(*x.shape[:-1], self.out_features)

    def whole_weight(self) -> Tensor:
        """The layer's weight with its adapters, (out_features, in_features), to be trained on."""
        return self.weight + self._up() @ self.lora_a.flatten(0, 1)

    def _up(self) -> Tensor:
        """The second matrices, scaled, each in rows and columns of its own: (out_features, parts
        times r).
        """
        columns = [
            F.pad(up, (0, 0, first, self.out_features - first - rows))
            for (first, rows), up in zip(self.parts, self.lora_b, strict=True)
        ]
        return torch.cat(columns, dim=1) * self.scale

    @torch.no_grad()
    def merged(self) -> Linear:
        """The plain layer that gives the same outputs."""
        weight = self.weight.clone()
        for (first, rows), down, up in zip(self.parts, self.lora_a, self.lora_b, strict=True):
            weight[first : first + rows] += self.scale * (up @ down)
        with torch.device("meta"):
            plain = Linear(self.in_features, self.out_features, self.bias is not None)
        plain.weight = nn.Parameter(weight)
        plain.bias = self.bias
        return plain.train(self.training)


def add_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Iterable[str] = ("q", "v"),
    train_head: bool = False,
) -> nn.Module:
    """Adapters on the attention and MLP layers of a model, in place; all its own weights freeze.

    Args:
        model: holds :class:`Attention` and :class:`Mlp` (or :class:`SwiGlu`) layers, or those of
            timm's Vision Transformer.
        rank: inner width of each adapter.
        alpha: its scale times the rank.
        targets: some of :data:`LORA_TARGETS`.
        train_head: leave the classifier trainable, as a new one has to be.

    Raises:
        ValueError: unknown targets, a rank below 1, a model without any such layer, or one that has
            adapters; the model is then as it was.
    """
    wanted = tuple(targets)
    unknown = sorted(set(wanted) - set(LORA_TARGETS))
    if unknown or not wanted:
        raise ValueError(f"LoRA targets {list(wanted)}; allowed: some of {', '.join(LORA_TARGETS)}")
    if rank < 1:
        raise ValueError(f"LoRA rank {rank}; allowed: 1 and more")
    modules = list(model.named_modules())
    adapted = [name for name, module in modules if isinstance(module, LoraLinear)]
    if adapted:
        raise ValueError(f"{adapted[0]} has an adapter already; merge_lora makes it part of it")
    places = [(m, name, parts) for _, m in modules for name, parts in _places(m, wanted)]
    if not places:
        raise ValueError(f"{type(model).__name__} has no layer for LoRA on {', '.join(wanted)}")
    model.requires_grad_(False)
    for module, name, parts in places:
        layer = getattr(module, name)
        setattr(module, name, LoraLinear(layer, rank, alpha, parts).train(layer.training))
    for head in classifiers(model) if train_head else ():
        head.requires_grad_(True)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Every adapter becomes part of its layer's weight, in place; the outputs stay.

    What is frozen stays frozen; the merged weights can be trained.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLinear):
                setattr(module, name, child.merged())
    return model


@torch.no_grad()
def merge_lora_state(
    state: Mapping[str, Tensor], *, alpha: float, targets: Iterable[str]
) -> dict[str, Tensor]:
    """The state dict of a model with adapters, as :func:`merge_lora` would leave it.

    Args:
        state: name -> tensor.
        alpha, targets: what :func:`add_lora` was given.
    """
    wanted = set(targets)
    merged = {name: tensor for name, tensor in state.items() if ".lora_" not in name}
    for name in (name for name in state if name.endswith(".lora_a")):
        layer = name.removesuffix(".lora_a")
        weight = merged[f"{layer}.weight"].clone()
        parts = [part for part in layer.rpartition(".")[2] if part in wanted]  # of qkv, kv or q
        for index, down in enumerate(state[name]):
            change = (alpha / len(down)) * (state[f"{layer}.lora_b.{index}"] @ down)
            # q lies first, v last, k before it, whether the layer holds all three or k and v.
            from_end = {"k": 2, "v": 1}.get(parts[index], 0) if layer.endswith("kv") else 0
            first = len(weight) - from_end * len(change) if from_end else 0
            weight[first : first + len(change)] += change
        merged[f"{layer}.weight"] = weight
    return merged


def _places(module: nn.Module, wanted: Sequence[str]) -> list[Place]:
    """(attribute, parts) of the layers of one module that are to be adapted."""
    if isinstance(module, Attention):
        return _attention_places(module, wanted)
    if is_timm_attention(module):
        third = len(module.get_parameter("qkv.weight")) // 3
        return _self_attention_places(
            wanted, {part: (at * third, third) for at, part in enumerate("qkv")}
        )
    if isinstance(module, Mlp | SwiGlu) or is_timm_mlp(module):
        return [(name, None) for name in ("fc1", "fc2") if name in wanted]
    return []


def _attention_places(attn: Attention, wanted: Sequence[str]) -> list[Place]:
    inner, shared = attn.num_heads * attn.head_dim, attn.num_kv_heads * attn.head_dim
    rows = {"q": (0, inner), "k": (inner, shared), "v": (inner + shared, shared)}
    if not attn.is_cross:
        return _self_attention_places(wanted, rows)
    found: list[Place] = [("q", None)] if "q" in wanted else []
    own = {"k": (0, shared), "v": (shared, shared)}
    parts = [own[part] for part in ("k", "v") if part in wanted]
    found += [("kv", parts)] if parts else []
    return found + ([("proj", None)] if "proj" in wanted else [])


def _self_attention_places(
    wanted: Sequence[str], rows: Mapping[str, tuple[int, int]]
) -> list[Place]:
    parts = [rows[part] for part in ("q", "k", "v") if part in wanted]
    found: list[Place] = [("qkv", parts)] if parts else []
    return found + ([("proj", None)] if "proj" in wanted else [])
