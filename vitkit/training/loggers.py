"""`metrics.csv`: one file a run, kept and cut back when a run is resumed.

Lightning's CSV logger deletes its file on resume, and spreads runs over version folders.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from vitkit.records import write_text

__all__ = ["CsvMetrics"]


class CsvMetrics(Logger):
    """A row per step that logged something; columns appear as metrics do.

    Args:
        path: the file.
        keep_before_step: rows of this step and later are cut: where a resumed run goes on.
    """

    def __init__(self, path: Path, keep_before_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = ["step", "epoch"]
        self._pending: dict[int, dict[str, Any]] = {}
        self._rows: list[dict[str, Any]] = []
        if keep_before_step is not None and path.exists():
            self._take_up(keep_before_step)

    @property
    def name(self) -> str:
        """Lightning asks for a name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: there is one file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of ``step``."""
        row = self._pending.setdefault(step or 0, {})
        row.update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Append finished rows; rewrite the file only when a new metric appeared."""
        fresh = [{"step": step, **row} for step, row in sorted(self._pending.items())]
        self._pending = {}
        names = dict.fromkeys(name for row in fresh for name in row)
        new = [name for name in names if name not in self._columns]
        self._columns += new
        self._rows += fresh
        if new or not self.path.exists():
            write_text(self.path, self._text(self._rows, header=True))
        elif fresh:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(self._text(fresh, header=False))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    @rank_zero_only
    def _take_up(self, step: int) -> None:
        """Cut the file back: the one process that writes it, so that no two do at a time."""
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a disk that filled up may have cut the last row
        reader = csv.DictReader(io.StringIO(whole))
        self._columns = list(reader.fieldnames or self._columns)
        rows = [{key: value for key, value in row.items() if value} for row in reader]
        self._rows = [row for row in rows if int(row["step"]) < step]
        write_text(self.path, self._text(self._rows, header=True))

    def _text(self, rows: list[dict[str, Any]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
