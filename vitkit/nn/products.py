"""Linear layers, by the quicker of the two libraries that torch multiplies with on a CPU.

torch gives float32 products to MKL and others to oneDNN. On processors that are not Intel's MKL
leaves half of AVX-512 unused; oneDNN does not ask who made them. ``python -m
benchmarks.linear`` measures both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitkit.nn import hardware

__all__ = ["Linear", "OneDnnProduct", "linear"]

LEAST = 2**22
"""Multiplications from which on oneDNN's longer way to begin pays."""


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: what :func:`torch.nn.functional.linear` gives, but for rounding.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,).
    """
    if (
        hardware.ONEDNN_IS_QUICKER
        and x.dtype == weight.dtype == torch.float32
        and x.is_cpu
        and not _watched()  # first: a compiler must not see the size that follows
        and x.numel() * len(weight) >= LEAST
    ):
        product: Tensor = OneDnnProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return F.linear(x, weight, bias)


def _watched() -> bool:
    """Whether somebody wants to see, cast or transform torch's own operation."""
    return (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
    )


class OneDnnProduct(torch.autograd.Function):
    """x W^T + b by oneDNN; its gradients too, and they can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As :func:`linear`."""
        ctx.save_for_backward(x, weight)
        return _times(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Of those that are wanted."""
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        product = linear if torch.is_grad_enabled() else _times
        rows, sent = x.reshape(-1, x.shape[-1]), grad.reshape(-1, len(weight))
        of_weight = None
        if wants_weight:
            # oneDNN copies a first factor that lies the wrong way round: let it be the narrower.
            if len(weight) <= weight.shape[1]:
                of_weight = product(sent.t(), rows.t())
            else:
                of_weight = product(rows.t(), sent.t()).t()
        return (
            product(grad, weight.t()) if wants_x else None,
            of_weight,
            sent.sum(0) if wants_bias else None,
        )


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
