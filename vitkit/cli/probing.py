"""The command that asks what a model's features are worth, and its table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from vitkit.cli.arguments import models_and_settings
from vitkit.cli.options import Debug, Quiet
from vitkit.cli.output import results_are_on_disk, tell_notes
from vitkit.errors import ConfigError

if TYPE_CHECKING:
    from vitkit.records import Plain

__all__ = ["probe", "probe_table"]


def probe(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CHECKPOINT|WEIGHTS|timm:NAME",
            help="What to probe, then settings such as data.name=cifar10.",
        ),
    ],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure what a model's features are worth as they are; write probe.json.

    Nothing in the model is trained. Its features of all images are computed once, then: a linear
    probe (its penalty chosen on the validation images), votes of the nearest neighbours, and, of a
    few examples a class, the nearest centroid and least squares. A run is probed on its own data
    unless others are named; a file of weights needs data.name. Examples:

    \b
        vitkit probe runs/mae_cifar10/20260101-120000
        vitkit probe vit.safetensors data.name=image_folder data.root=flowers
        vitkit probe timm:resnet18 weights=a.pth data.name=cifar10 data.root=data
    """
    from vitkit.app import probe as probe_model

    models, settings = models_and_settings(source)
    if len(models) != 1:
        raise ConfigError(
            f"given {len(models)} models, allowed: one at a time; a setting is written KEY=VALUE"
        )
    result = probe_model(models[0], settings, progress=not quiet)
    results_are_on_disk()
    facts = result.record.facts
    if not quiet:
        print(
            f"{facts['model']} on {facts['data']}: {facts['features']} features, "
            f"{facts['train_images']:,} + {facts['val_images']:,} images to learn from, "
            f"{facts['test_images']:,} to test"
        )
    tell_notes(result.notes)
    for line in probe_table(result.metrics, facts):
        print(line)
    print(f"results: {result.path}")
    print(f"head:    {result.head} (task.finetune.head=...)")


def probe_table(metrics: Mapping[str, float], facts: Mapping[str, Plain]) -> list[str]:
    """One line a classifier: its accuracy on the test images, and how it came about.

    Args:
        metrics, facts: of ``probe.json``.
    """
    accuracy, l2 = metrics["probe/linear_val_acc"], metrics["probe/linear_l2"]
    rows = [
        (
            "linear probe",
            metrics["probe/linear_acc"],
            f"l2 {l2:.3g}, at {accuracy:.2%} the best on validation",
        )
    ]
    for name, value in metrics.items():
        if found := re.fullmatch(r"probe/knn_(\d+)_acc", name):
            how = f"cosine, temperature {facts['knn_temperature']}"
            rows.append((f"{found[1]} neighbours", value, how))
        elif found := re.fullmatch(r"probe/(few_shot|few_shot_ridge)_(\d+)_acc", name):
            spread = metrics[f"{name.removesuffix('acc')}sd"]
            way = "nearest centroid" if found[1] == "few_shot" else "least squares"
            how = f"{way}, +- {spread:.2%} over {facts['few_shot_draws']} draws"
            rows.append((f"{found[2]} a class", value, how))
    return [f"{name:<14} {value:>8.2%}  {how}" for name, value, how in rows]
