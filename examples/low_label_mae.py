"""A tenth of the labels: is masked autoencoding of all images worth the time that it takes?

    python -m examples.low_label_mae data.root=data
    python -m examples.low_label_mae --quick

For three seeds: configs/mae_cifar10.yaml, fine-tuning what it made on a tenth of the labels, and
these labels alone with the time of both. The labels are the same for all seeds. No choice is made
between runs, so no images are kept for validation. Resumable as examples/transfer_flowers.py is.
Prints test accuracy of each run, then mean and standard deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from examples.transfer_flowers import trained

TUNED = "configs/mae_cifar10_finetune10.yaml"
FEW = ["data.val_fraction=0.0", "data.label_fraction=0.1"]
QUICK = ["data.name=synthetic", "data.synthetic_size=200", "data.batch_size=8", "model.depth=1"]
QUICK += ["trainer.max_epochs=1", "trainer.max_time=0.0", "trainer.accelerator=cpu"]


def main(arguments: Sequence[str]) -> dict[str, list[float]]:
    """Returns the test accuracies of every seed, fine-tuned and from scratch."""
    quick = "--quick" in arguments
    given = FEW + [word for word in arguments if word != "--quick"] + (QUICK if quick else [])
    table = Path("runs/low_label_mae_quick" if quick else "runs/low_label_mae", "table.jsonl")
    found: dict[str, list[float]] = {"pre-trained": [], "from scratch": []}
    for seed in (0,) if quick else (0, 1, 2):
        own = [*given, f"run.seed={seed}"]
        trained(table, f"mae-{seed}", ["configs/mae_cifar10.yaml", *own])
        weights = table.parent / f"mae-{seed}" / "checkpoints" / "last.ckpt"
        twin = ["model.whiten_patches=true", "trainer.max_time=900.0"]
        rows = {"pre-trained": [f"model.weights={weights}"], "from scratch": twin}
        for name, more in rows.items():
            line = trained(table, f"{name}-{seed}".replace(" ", "-"), [TUNED, *more, *own])
            found[name].append(float(str(line["test/acc"])))
            print(f"{name}, seed {seed}: {found[name][-1]:.2%}", flush=True)
    for name, values in found.items():
        spread = f" +- {stdev(values):.2%}" if len(values) > 1 else ""
        print(f"{name}: {fmean(values):.2%}{spread}")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
