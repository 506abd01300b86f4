"""What a forward pass costs, whatever the machine: operations, activations, memory.

An operation is a multiplication or an addition: twice the multiply-accumulates ("MACs") that papers
on vision mostly print as FLOPs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_activations", "count_flops", "count_parameters", "peak_memory"]

Run = Callable[[], object]

aten = torch.ops.aten


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Scores and their sum over the values, from the shapes (B, H, N, D), (B, G, M, D)."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[-2] * (width + value[-1])


# torch's counter knows the kernels of CUDA; what it does not know it counts as nothing.
KERNELS = {
    getattr(aten, name): _attention_flops
    for name in (
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    if hasattr(aten, name)
}
"""torch's fused kernels of attention."""


def count_parameters(model: nn.Module) -> int:
    """Numbers in all parameters, frozen ones too; buffers left out."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(run: Run) -> int:
    """Operations of the products in a call, attention's included under every kernel.

    Norms, softmax and activation functions are left out, as everywhere.

    Args:
        run: calls the model on a batch, such as one image.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        run()
    return int(counter.get_total_flops())


def count_activations(model: nn.Module, run: Run) -> int:
    """Elements that all linear layers and convolutions of a model give in a call.

    Source: Radosavovic et al., "Designing network design spaces", arXiv 2003.13678, who count
    convolutions.
    """
    seen = 0

    def add(module: nn.Module, given: Any, out: Any) -> None:
        nonlocal seen
        if isinstance(out, Tensor):
            seen += out.numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def peak_memory(run: Run, device: torch.device | str = "cpu") -> int:
    """Bytes that a call without gradients holds at most, beyond what was there before.

    On CUDA what torch's allocator had given out at most; elsewhere the tensors that were alive at
    once, without what kernels use inside.

    Args:
        run: the call.
        device: where it runs.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with torch.no_grad():
            run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    meter = _Storages()
    with torch.no_grad(), meter:
        run()
    return meter.peak


class _Storages(TorchDispatchMode):
    """Follows the memory behind the tensors that come into being inside."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: dict[int, object] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                # Weights and inputs were there before; held, so that their place is not reused.
                self._known.setdefault(storage._cdata, storage)
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return

        def gone(_: object) -> None:
            del self._known[place]
            self.alive -= size

        self._known[place] = weakref.ref(storage, gone)
        self.alive += size
        self.peak = max(self.peak, self.alive)
