"""A tenth of the labels: is masked autoencoding of all images worth the time that it takes?

    python -m examples.low_label_mae data.root=data
    python -m examples.low_label_mae --relative data.root=data
    python -m examples.low_label_mae --quick

For three seeds, a quarter of an hour each: configs/mae_cifar10.yaml and fine-tuning what it made on
a tenth of the labels; and these labels alone. The ViT has positions of sines, as published for
masked autoencoding; with --relative it starts as in the configs. The labels are the same for all
seeds. No choice is made between runs, so no images are kept for validation. Resumable as
examples/transfer_flowers.py is. Prints test accuracies, then mean and standard deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from examples.transfer_flowers import trained

TUNED = "configs/mae_cifar10_finetune10.yaml"
FEW = ["data.val_fraction=0.0", "data.label_fraction=0.1"]
SINES = ["model.pos_embed=sincos2d", "model.whiten_patches=false"]
STARTS = {
    "sines": tuple([*SINES, f"trainer.max_time={seconds}"] for seconds in (300.0, 600.0, 900.0)),
    "relative": ([], [], ["model.whiten_patches=true", "trainer.max_time=900.0"]),
}
"""Positions -> what is set for the pre-training, the fine-tuning, and the labels alone."""
QUICK = ["data.name=synthetic", "data.synthetic_size=200", "data.batch_size=8", "model.depth=1"]
QUICK += ["trainer.max_epochs=1", "trainer.max_time=0.0", "trainer.accelerator=cpu"]


def main(arguments: Sequence[str]) -> dict[str, list[float]]:
    """Returns the test accuracies of every seed, fine-tuned and from scratch."""
    quick, relative = "--quick" in arguments, "--relative" in arguments
    pre_training, tuning, alone = STARTS["relative" if relative else "sines"]
    settings = [word for word in arguments if word not in ("--quick", "--relative")]
    folder = "runs/low_label_mae" + "_relative" * relative + "_quick" * quick
    table = Path(folder, "table.jsonl")
    found: dict[str, list[float]] = {"pre-trained": [], "from scratch": []}
    for seed in (0,) if quick else (0, 1, 2):
        own = [*FEW, *settings, *QUICK * quick, f"run.seed={seed}"]
        trained(table, f"mae-{seed}", ["configs/mae_cifar10.yaml", *pre_training, *own])
        weights = table.parent / f"mae-{seed}" / "checkpoints" / "last.ckpt"
        rows = {"pre-trained": [f"model.weights={weights}", *tuning], "from scratch": alone}
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
