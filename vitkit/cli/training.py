"""The command that trains, and what it prints of a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitkit.app.invocation import is_child
from vitkit.cli.advice import next_commands, train_longer
from vitkit.cli.arguments import Settings
from vitkit.cli.options import Debug, Quiet
from vitkit.cli.output import results_are_on_disk
from vitkit.errors import ConfigError

if TYPE_CHECKING:
    from vitkit.config import RunConfig

__all__ = ["train"]

PER_SECOND = "_per_second"


def train(
    settings: Settings = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run folder where it stopped.")
    ] = None,
    extend: Annotated[
        int | None,
        typer.Option(metavar="EPOCHS", min=1, help="With --resume: train to so many in all."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train this many seeds; print mean and interval.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, run one batch, leave no files.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved settings and stop.")
    ] = False,
    list_keys: Annotated[
        bool, typer.Option("--list-keys", help="Print every setting with its default and stop.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model, test it, and leave the results in a new folder under runs/.

    Without a file it trains a small ViT on handwritten digits that need no download, by a recipe of
    its own (see --print-config); with one, what the file leaves out is as --list-keys says.
    Examples:

    \b
        python train.py configs/cct_2_3x2_cifar10.yaml data.root=data
        python train.py trainer.max_epochs=20 optimizer.lr=1e-3
        python train.py --resume runs/vit_digits-digits/20260101-120000
        python train.py --resume runs/flowers/20260101-120000 --extend 60
    """
    if list_keys:
        _print_keys()
        return
    chosen = {"--resume": resume is not None, "--print-config": print_config, "--dry-run": dry_run}
    ways = [name for name, given in {**chosen, "--seeds": seeds > 1}.items() if given]
    if len(ways) > 1:
        raise ConfigError(f"{' and '.join(ways)} exclude each other; give one of them")
    if extend is not None and resume is None:
        raise ConfigError(f"--extend {extend} needs --resume RUN: which run to train longer")
    if resume is not None:
        _resume(resume, settings, extend, quiet)
        return
    from vitkit.config import dump_yaml, load_config, split_arguments

    config = load_config(*split_arguments(settings or []))
    if print_config:
        print(dump_yaml(config), end="")
    elif dry_run:
        _try(config)
    elif seeds > 1:
        _train_seeds(config, seeds, quiet)
    else:
        _train(config, quiet)


def _train(config: RunConfig, quiet: bool) -> None:
    from vitkit.app import process_seconds
    from vitkit.app import train as train_run

    _show_result(train_run(config, progress=not quiet, since=process_seconds()), quiet)


def _try(config: RunConfig) -> None:
    from vitkit.app import try_one_batch

    job = try_one_batch(config)
    if not is_child():
        tried = f"{config.model.name} ({job.num_parameters:,} parameters) on {config.data.name}"
        print(f"{tried}: one batch works")


def _train_seeds(config: RunConfig, count: int, quiet: bool) -> None:
    from vitkit.app import train_seeds
    from vitkit.cli.tables import seed_table

    summary = train_seeds(config, count, quiet=quiet)
    results_are_on_disk()
    print(seed_table(summary.records, summary.record))
    print(f"results: {summary.folder / 'seeds.json'}")


def _resume(run: Path, settings: list[str] | None, extend: int | None, quiet: bool) -> None:
    from vitkit.app import finished_results, process_seconds
    from vitkit.app import resume as resume_run

    if settings:
        raise ConfigError(
            f"--resume goes on with the run's own settings; leave out {settings[0]!r}. "
            + train_longer(run)
        )
    if extend is None and (results := finished_results(run)) is not None:
        print(f"already finished: {results}. {train_longer(run)}")
        return
    result = resume_run(run, extend=extend, progress=not quiet, since=process_seconds())
    _show_result(result, quiet)


def _print_keys() -> None:
    from vitkit.config import describe_keys

    print("# What a setting is where nothing sets it. train.py without a file and without")
    print("# data.name or model.name starts from its own recipe: train.py --print-config")
    print("# What a model leaves null is as its name says, or else as its class does.")
    for key, default, description in describe_keys():
        print(f"{key} = {json.dumps(default)}\n    {description}")


def _show_result(result: object, quiet: bool) -> None:
    from vitkit.app import TrainResult, rate_text
    from vitkit.cli.tables import metric_table

    assert isinstance(result, TrainResult)
    results_are_on_disk()
    if is_child():
        return
    facts = result.record.facts
    print(metric_table(result.metrics))
    if not quiet:
        rates = [name for name in facts if name.endswith(PER_SECOND)]
        said = [f"{rate_text(float(str(facts[n])))} {n.removesuffix(PER_SECOND)}/s" for n in rates]
        steps, seconds = f"{facts['steps']:,} steps", f"{facts['wall_seconds']:.1f} s in all"
        print(", ".join([steps, *said, seconds]))
    page = result.folder / "report" / "index.html"
    if page.is_file() and not quiet:
        print(f"report:  {page}")
    print(f"results: {result.folder / 'results.json'}")
    if not quiet:
        following = next_commands(result.folder, str(facts.get("task", "")))
        print(*(f"next:    {line}" for line in following), sep="\n")
