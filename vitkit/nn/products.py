"""Linear layers, by the quicker of the two libraries that torch multiplies with on a CPU.

torch gives float32 products to MKL and others to oneDNN. MKL takes AVX-512 on Intel's processors
alone; oneDNN does not ask who made them. ``python -m benchmarks.linear`` measures both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from vitkit.nn import hardware

__all__ = ["Linear", "OneDnnProduct", "linear"]

LEAST = 2**22
"""Least number of multiplications for which oneDNN is quicker: it takes longer to begin."""


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
        and not _watched()  # first: a compiler must not see the sizes that follow
        and x.shape[-1] == weight.shape[1]  # or torch's own says what is wrong
        and x.numel() * len(weight) >= LEAST
    ):
        # Rows outside of the function: what it returns may then be written to.
        rows: Tensor = OneDnnProduct.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return rows.view(*x.shape[:-1], len(weight))
    return F.linear(x, weight, bias)


def _watched() -> bool:
    """Whether a compiler, autocast, a dispatch mode or a functional transform must see F.linear."""
    return (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
    )


class OneDnnProduct(torch.autograd.Function):
    """x W^T + b by oneDNN; its gradients too, and they can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As :func:`linear`, of x (rows, in_features)."""
        wants_x, wants_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
        return _times(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Of those that are wanted."""
        x, weight = ctx.saved_tensors
        product = linear if torch.is_grad_enabled() or _watched() else _times
        of_weight = None
        if x is not None:
            # oneDNN copies a first factor that lies the wrong way round, and what comes out so is
            # copied into the gradient: the way of less to copy.
            if grad.numel() <= x.numel() + grad.shape[1] * x.shape[1]:
                of_weight = product(grad.t(), x.t())
            else:
                of_weight = product(x.t(), grad.t()).t()
        return (
            None if weight is None else product(grad, weight.t()),
            of_weight,
            grad.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
