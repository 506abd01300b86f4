"""What became of each tensor of a source of weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LoadReport", "some"]


@dataclass
class LoadReport:
    """What became of each tensor.

    Attributes:
        loaded: names taken as they were.
        resized: names fitted to the model's grid, patch size or channels.
        new: names of the model that the source lacks (a head for other classes): kept as they are.
        unused: names of the source that the model lacks.
        format: the layout that the source was in.
        preprocessing: what the weights expect of a picture, fields of ``Preprocessing`` as plain
            values: stated by the source, else the format's documented default, else nothing.
        class_names: of the head, where the source states them.
        published_as: timm's name of the published weights that the source says it is; empty if it
            says none.
        of_imagenet: whether classifiers of this layout are usually ImageNet's.
        embeds: whether their head makes embeddings instead of scores of classes.
        notes: what else a person should know, a line each.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    format: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    published_as: str = ""
    of_imagenet: bool = False
    embeds: bool = False
    notes: list[str] = field(default_factory=list)

    def begin_anew(self, names: Iterable[str], why: str) -> None:
        """Count tensors as new that were loaded, and written over since; ``why`` is noted."""
        written = set(names)
        undone = [name for name in self.loaded if name in written]
        if undone:
            self.loaded = [name for name in self.loaded if name not in undone]
            self.new += undone
            self.notes.append(f"{why}: {some(undone)} of the weights are not used")

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """A short table, one line a kind."""
        rows = [("loaded", self.loaded), ("resized", self.resized)]
        rows += [("new", self.new), ("unused", self.unused)]
        lines = [f"{kind:8}{len(names):4}  {some(names)}" for kind, names in rows if names]
        head = [f"{'format':14}{self.format}"] if self.format else []
        return [*head, *lines, *(f"{'note':14}{note}" for note in self.notes)]


def some(names: list[str], count: int = 3) -> str:
    """The first few of some names."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
