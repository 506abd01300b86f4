"""The command line: exit codes, progress, tables. No mathematics."""

import sys

try:
    from vitkit.cli.main import main, run_eval, run_train
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("vitkit"):
        raise
    sys.exit(
        f"error: {sys.executable} has no {missing.name}: vitkit's environment is not active; "
        "`source .venv/bin/activate`, or `make train`, which sets one up"
    )

__all__ = ["main", "run_eval", "run_train"]
