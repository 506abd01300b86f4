"""The command line: exit codes, progress, tables. No mathematics."""

from vitkit.cli.main import main, run_eval, run_train

__all__ = ["main", "run_eval", "run_train"]
