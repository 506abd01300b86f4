"""What is a ViT worth on new pictures that was pre-trained on others, and how much must be trained?

    python -m examples.transfer_flowers RUN/checkpoints/last.ckpt data.root=flowers

RUN is of configs/cifar10_cpu_30min_vit.yaml or configs/mae_cifar10.yaml. Each row is a process by
configs/flowers_finetune.yaml and a line in runs/transfer_flowers/table.jsonl; the same command goes
on where it was stopped. --quick tries it with an epoch, in a folder of its own. Prints accuracy,
trained parameters, seconds and the largest memory of the process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FACTS = ("test/acc", "trainable_parameters", "wall_seconds", "peak_memory_mb")
LORA = ("task.finetune.mode=lora", "task.finetune.rank=16", "optimizer.lr=5e-3")
MODES: dict[str, tuple[str, ...]] = {
    "full": ("task.finetune.mode=full",),
    "partial": ("task.finetune.mode=partial",),
    "lora": (*LORA, "task.finetune.targets=[q,k,v,proj]"),
    "lora-everywhere": (*LORA, "task.finetune.targets=[q,k,v,proj,fc1,fc2]"),
    "bias": ("task.finetune.mode=bias", "optimizer.lr=5e-3"),
    "head": ("task.finetune.mode=head", "optimizer.lr=1e-2"),
}
"""Ways of fine-tuning, with what each wants of the recipe: what trains less may step farther.
Adapters of the attention alone need no inputs of the MLPs, which are most of what is kept.
"""


def trained(table: Path, name: str, settings: Sequence[str]) -> dict[str, object]:
    """The line of a run; trains it if there is none, or goes on with it.

    Args:
        table: of all runs, whose folders are beside it.
        name: of the run.
        settings: of the run, as the command line takes them.

    Raises:
        SystemExit: the run failed, or the table holds one of that name with other settings.
    """
    for line in table.read_text().splitlines() if table.exists() else []:
        if (known := json.loads(line))["run"] == name:
            if known["settings"] != (given := [str(word) for word in settings]):
                raise SystemExit(
                    f"{table}: {name} was trained with other settings "
                    f"({' '.join(known['settings'])}) than {' '.join(given)}; move that folder away"
                )
            return dict(known)
    run, words = table.parent / name, ["--resume", str(table.parent / name)]
    if not (run / "checkpoints" / "last.ckpt").exists():
        shutil.rmtree(run, ignore_errors=True)
        words = [*settings, f"run.dir={run}"]
    command = [sys.executable, "-m", "vitkit", "train", *words, "--quiet"]
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(f"{name}: exit code {code}; the same command goes on")
    results = json.loads((run / "results.json").read_text())
    found = {"run": name, **{key: results.get(key) for key in FACTS}, "settings": list(settings)}
    with table.open("a") as file:
        file.write(json.dumps(found) + "\n")
    return found


def main(arguments: Sequence[str]) -> list[dict[str, object]]:
    """Returns the lines of the table."""
    weights, *settings = [word for word in arguments if word != "--quick"] or [""]
    if not weights or "=" in weights:
        raise SystemExit(
            "give the checkpoint to start from, then settings: CHECKPOINT data.root=FOLDER"
        )
    start = f"model.weights={weights}"
    rows = {name: [start, *more] for name, more in MODES.items()}
    rows["scratch"] = ["model.whiten_patches=true"]  # so did the pre-trained one begin
    quick = "--quick" in arguments
    settings = ["configs/flowers_finetune.yaml", *settings, *["trainer.max_epochs=1"] * quick]
    table = Path("runs/transfer_flowers_quick" if quick else "runs/transfer_flowers", "table.jsonl")
    lines = [trained(table, name, [*settings, *more]) for name, more in rows.items()]
    shown = [("run", *FACTS), *([line[key] for key in ("run", *FACTS)] for line in lines)]
    print(*("".join(f"{cell!s:>22}" for cell in row) for row in shown), sep="\n")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
