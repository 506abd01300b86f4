"""From a run's files to a page that tells its story; no model, no torch, no network."""

from vitkit.report.comparison import comparison_page
from vitkit.report.files import Run, holds_records, read_run, suffixes_of
from vitkit.report.page import run_page

__all__ = ["Run", "comparison_page", "holds_records", "read_run", "run_page", "suffixes_of"]
