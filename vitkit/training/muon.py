"""Muon: the momentum of each hidden matrix, orthogonalised before it becomes a step.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
kellerjordan.github.io/posts/muon.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["Muon", "orthogonalized"]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd quintic that drives singular values towards one; it settles between 0.7
and 1.2 instead of converging, and does so in few steps."""


class Muon(torch.optim.Optimizer):
    """Muon for the groups marked ``muon``, AdamW for the others: one optimiser, one state.

    Args:
        groups: parameter groups. ``muon`` (bool) says who trains a group; ``rows``, in Muon's, is a
            list with the heights of the matrices that lie stacked in each parameter (queries, keys
            and values are three matrices, not one). A kernel of more than two dimensions is the
            matrix (out, everything else).
        lr: peak learning rate where a group names none.
        weight_decay: decoupled, times the learning rate, where a group names none.
        momentum: Muon's decay rate of the running gradient; the step looks ahead (Nesterov).
        ns_steps: Newton-Schulz iterations.
        betas, eps: AdamW's.
        dtype: number format of the iteration's products; float32 unless the hardware is faster in
            another. It needs no precision, and the source always takes bfloat16: the result is only
            nearly orthogonal anyway.
        fused: AdamW's one-pass kernel.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        dtype: torch.dtype = torch.float32,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "muon": False,
            "momentum": momentum,
            "ns_steps": ns_steps,
            "betas": betas,
            "eps": eps,
            # A key that torch looks for: it then moves the counted steps to the weights' device.
            "fused": fused,
        }
        super().__init__(groups, defaults)
        self.dtype, self.fused = dtype, fused

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group; parameters without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
            else:
                self._step_adamw(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        with_gradient = [i for i, p in enumerate(group["params"]) if p.grad is not None]
        if not with_gradient:
            return
        params = [group["params"][i] for i in with_gradient]
        grads = [p.grad for p in params]
        buffers = [self._buffer(p, "momentum_buffer") for p in params]
        torch._foreach_lerp_(buffers, grads, 1.0 - group["momentum"])
        ahead = torch._foreach_lerp(grads, buffers, group["momentum"])
        steps = orthogonalized(
            [step.flatten(1) for step in ahead],
            [group["rows"][i] for i in with_gradient],
            ns_steps=group["ns_steps"],
            dtype=self.dtype,
        )
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1.0 - group["lr"] * group["weight_decay"])
        shaped = [step.view_as(p) for step, p in zip(steps, params, strict=True)]
        torch._foreach_add_(params, shaped, alpha=-group["lr"])

    def _step_adamw(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        steps = [self._steps(p) for p in params]
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [p.grad for p in params],
            [self._buffer(p, "exp_avg") for p in params],
            [self._buffer(p, "exp_avg_sq") for p in params],
            [],
            steps,
            fused=self.fused or None,  # False would forbid the grouped kernels too
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _steps(self, parameter: Tensor) -> Tensor:
        """How many steps a weight has had: beside it for the fused kernel, else on the CPU."""
        state = self.state[parameter]
        device = parameter.device if self.fused else torch.device("cpu")
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        elif state["step"].device != device:  # as checkpoints of earlier versions leave it
            state["step"] = state["step"].to(device)
        steps: Tensor = state["step"]
        return steps

    def _buffer(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        buffer: Tensor = state[name]
        return buffer


def orthogonalized(
    matrices: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    *,
    ns_steps: int = 5,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Each matrix with its singular values brought near one; equal shapes share their products.

    Args:
        matrices: (sum of its ``rows``, columns) each.
        rows: heights of the matrices that lie stacked in each.
        ns_steps: iterations.
        dtype: number format of the products.

    Returns:
        As ``matrices``, each stacked part times sqrt(max(1, rows / columns)), so that a step moves
        tall and wide layers alike.
    """
    parts = [part for m, heights in zip(matrices, rows, strict=True) for part in m.split(heights)]
    alike: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for index, part in enumerate(parts):
        alike[part.shape].append(index)
    done: list[Tensor] = list(parts)
    for (height, width), indices in alike.items():
        stacked = torch.stack([parts[i] for i in indices])
        result = _newton_schulz(stacked.to(dtype), ns_steps).to(stacked.dtype)
        result *= max(1.0, height / width) ** 0.5
        for index, matrix in zip(indices, result, strict=True):
            done[index] = matrix
    pieces = iter(done)
    stacks = [[next(pieces) for _ in heights] for heights in rows]
    return [torch.cat(stack) if len(stack) > 1 else stack[0] for stack in stacks]


def _newton_schulz(x: Tensor, steps: int) -> Tensor:
    """(matrices, rows, columns) -> the same, singular values near one."""
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # the products are those of the short side
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.mT if tall else x
    # There one kernel takes the steps of all weights, if each step lies in memory as its weight.
    return x.contiguous() if x.is_cuda else x
