"""From a run's files to a page that tells its story; no model, no torch, no network."""

from vitkit.report.comparison import comparison_page
from vitkit.report.files import (
    Run,
    holds_records,
    holds_seeds,
    read_run,
    read_seeds,
    suffixes_of,
)
from vitkit.report.page import run_page
from vitkit.report.seeds import seed_values, seeds_page

__all__ = [
    "Run",
    "comparison_page",
    "holds_records",
    "holds_seeds",
    "read_run",
    "read_seeds",
    "run_page",
    "seed_values",
    "seeds_page",
    "suffixes_of",
]
