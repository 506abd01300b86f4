"""Evaluate a run or checkpoint: ``python eval.py RUN``. The same as ``vitkit eval``."""

from vitkit.cli import run_eval

if __name__ == "__main__":
    run_eval()
