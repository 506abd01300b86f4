"""What a run or an evaluation leaves behind for people and reports: plain values in JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Plain", "Record", "write_text"]

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class Record:
    """One flat object: metrics under the names they are logged by, then the facts about the run.

    Attributes:
        metrics: such as ``test/acc``, a fraction in [0, 1].
        facts: wall seconds, parameters, versions, hardware, commit, seed, ...
    """

    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Plain] = field(default_factory=dict)

    def flat(self) -> dict[str, Plain]:
        """Metrics first, then facts."""
        return {**self.metrics, **self.facts}

    def write(self, path: Path) -> None:
        """Write as JSON, beside and renamed: a reader never sees half a file."""
        write_text(path, json.dumps(self.flat(), indent=2, allow_nan=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what :meth:`write` wrote; a key with a slash is a metric."""
        flat: Mapping[str, Plain] = json.loads(path.read_text(encoding="utf-8"))
        metrics = {
            key: float(value)
            for key, value in flat.items()
            if "/" in key and isinstance(value, int | float)
        }
        return cls(metrics, {key: value for key, value in flat.items() if key not in metrics})


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it there."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
