"""Changes to a model for a while, and a model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch import nn

__all__ = ["Changes", "evaluating"]


@dataclass(eq=False)
class _Holder:
    needs: set[Hashable]
    made: dict[Hashable, Callable[[], object]]


class Changes:
    """Changes of one kind, and the ``with`` blocks that need them. These may end in any order: that
    of a generator stays open between two of its values.
    """

    def __init__(self) -> None:
        self._holders: list[_Holder] = []

    @contextmanager
    def held(
        self, needs: set[Hashable], made: dict[Hashable, Callable[[], object]]
    ) -> Iterator[None]:
        """At its end a block takes back what it made, or leaves that to a later one that needs it.

        Args:
            needs: changes that have to last to the end of the block.
            made: those of them that it made itself, and what takes each back.
        """
        holder = _Holder(needs, made)
        self._holders.append(holder)
        try:
            yield
        finally:
            later = self._holders[self._holders.index(holder) + 1 :]
            self._holders.remove(holder)
            for change, take_back in made.items():
                heir = next((other for other in later if change in other.needs), None)
                if heir is None:
                    take_back()
                else:
                    heir.made[change] = take_back


_switched_off = Changes()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode inside the ``with`` block; behind it every part as it was.

    Of blocks that overlap each lasts to its own end.
    """
    parts = {id(part): part for part in model.modules()}
    training: dict[Hashable, Callable[[], object]] = {
        key: partial(setattr, part, "training", True)
        for key, part in parts.items()
        if part.training
    }
    model.eval()
    with _switched_off.held(set(parts), training):
        yield
