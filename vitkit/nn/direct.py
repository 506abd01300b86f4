"""Layers that call each other without torch's machinery in between."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from vitkit.nn.attention import Attention
from vitkit.nn.blocks import globally_hooked, is_hooked
from vitkit.nn.modes import Changes
from vitkit.nn.products import Linear
from vitkit.nn.tokenwise import Mlp, QuickGelu, SwiGlu

__all__ = ["direct_calls"]

KNOWN = (
    *(Attention, Mlp, SwiGlu, Linear, nn.Linear, nn.LayerNorm, nn.RMSNorm),
    *(nn.GELU, QuickGelu, nn.SiLU, nn.ReLU),
)
"""Layers that others only call."""

_placed = Changes()


@contextmanager
def direct_calls(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, layers of known types are called as plain functions.

    torch looks up a layer's name and its hooks at each call: for one token of a small model that
    takes longer than the arithmetic. Outputs are the same to the bit, but for rounding where a last
    block would compute some tokens alone: it computes them all. Layers with hooks are called as
    ever, and so are all of them where a hook is on every module; a hook that is put in place within
    the block is not seen.

    Args:
        model: its modules, and what they hold, stay; only how they find each other changes. One
            that looks at a part, where it may be such a layer, finds it in ``_modules``.
    """
    wanted: set[Hashable] = set()
    made: dict[Hashable, Callable[[], object]] = {}
    for module in model.modules() if not globally_hooked() else ():
        for name, part in module._modules.items():
            if part is not None and type(part) in KNOWN and not is_hooked(part):
                wanted.add((id(module), name))
                if name not in module.__dict__:
                    # An instance's own dict is looked into before the modules are.
                    module.__dict__[name] = part.forward
                    made[id(module), name] = partial(module.__dict__.pop, name, None)
    with _placed.held(wanted, made):
        yield
