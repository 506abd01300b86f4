"""Train a model: ``python train.py [FILE | KEY=VALUE]...``. The same as ``vitkit train``."""

from vitkit.cli import run_train

if __name__ == "__main__":
    run_train()
