"""The commands. Heavy imports wait inside them, so that ``--help`` is quick."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitkit.app.invocation import is_child
from vitkit.cli.advice import next_commands, train_longer
from vitkit.cli.options import Debug, Quiet
from vitkit.cli.output import results_are_on_disk, tell_notes
from vitkit.errors import ConfigError, UnknownNameError, VitkitError, nearest

if TYPE_CHECKING:
    from vitkit.config import RunConfig

__all__ = [
    "check_data",
    "evaluate",
    "export",
    "models",
    "models_and_settings",
    "predict",
    "train",
    "vitkit",
]

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE | KEY=VALUE]...",
        help="YAML files, then settings such as data.name=cifar10 or optimizer.lr=1e-3.",
        show_default=False,
    ),
]

YAML_SUFFIXES = (".yaml", ".yml")

PER_SECOND = "_per_second"


def vitkit(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Train, evaluate and use Vision Transformers (and the text Transformers they came from)."""
    if version:
        print(f"vitkit {metadata.version('vitkit')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


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
        count = sum(p.numel() for p in job.model.parameters())
        tried = f"{config.model.name} ({count:,} parameters) on {config.data.name}"
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


def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|CHECKPOINT|timm:NAME...",
            help="What to evaluate, one or several, then settings such as eval.tta=flip.",
        ),
    ],
    suite: Annotated[str, typer.Option(help="standard, shift, speed or all.")] = "standard",
    split: Annotated[
        str,
        typer.Option(help="train, val, test, all; auto: test, or val where there is no test."),
    ] = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Evaluate runs, checkpoints, or models of timm; print a table, write eval.json beside each.

    All it needs is in the checkpoint; data.KEY=VALUE settings evaluate it on other data. Of a run
    folder it takes the weights that the run itself tested: the last ones (averaged, with
    ema.enabled), or the best with early stopping. A model of timm takes weights=FILE behind its
    name, and needs data.name. With --split all each split has a column, and files of its own.
    Examples:

    \b
        python eval.py runs/flowers/20260101-120000
        python eval.py runs/flowers/20260101-120000/checkpoints/best.ckpt
        python eval.py runs/a/1 runs/b/1 --suite all eval.tta=flip
        python eval.py runs/flowers/20260101-120000 --split all
        python eval.py timm:resnet18 weights=a.pth data.name=cifar10
    """
    from vitkit.app import compare
    from vitkit.cli.tables import comparison_table, metric_table, paired_lines, split_table

    models, overrides = models_and_settings(sources)
    comparison = compare(models, overrides, split=split, suite=suite, progress=not quiet)
    results = comparison.results
    for number, result in enumerate(results, 1):
        if result.unfinished:
            print(f"note: {result.unfinished}")
        mark = f"{number}  " if len(results) > 1 else ""
        counted = f"{result.count:,} {result.split} {result.unit}"
        step = result.record.facts.get("step")
        of_step = "" if step is None else f" of step {int(str(step)):,}"
        print(f"{mark}{result.checkpoint} ({result.weights_name} weights{of_step}), {counted}")
    if len(results) == 1:
        print(metric_table(results[0].metrics))
    elif split == "all":
        print(split_table([(result.split, result.metrics) for result in results]))
    else:
        print(comparison_table([result.metrics for result in results]))
    of_all = split == "all"  # else each is held against the first
    splits = [result.split if of_all else "" for result in results]
    for line in paired_lines(comparison.paired, splits):
        print(line)
    for result in results:
        if result.page is not None and not quiet:
            print(f"report: {result.page}")


def models_and_settings(
    words: list[str],
) -> tuple[list[str | tuple[str, str]], list[str]]:
    """What to evaluate, and settings; ``weights=`` belongs to the name before it."""
    models: list[str | tuple[str, str]] = []
    settings: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            models.append(word)
        elif key != "weights":
            settings.append(word)
        elif not models or isinstance(models[-1], tuple):
            raise ConfigError(f"{word}: put it behind the model that it is for, timm:NAME {word}")
        else:
            models[-1] = (str(models[-1]), value)
    return models, settings


def predict(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN|WEIGHTS", help="A run, checkpoint, file of weights or hub id."),
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE|FOLDER...")],
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names: JSON, or text, a line each.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a picture and class.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refuse larger pictures.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Name the most likely classes of pictures, with probabilities.

    A file that cannot be read is reported and left out; the exit code is 1 then.
    """
    from vitkit.app import load, read_class_names

    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    unread: list[str] = []

    def tell(error: VitkitError) -> None:
        unread.append(str(error))
        print(f"error: {error}", file=sys.stderr, flush=True)

    names = () if classes is None else read_class_names(classes)
    predictor = load(source, class_names=names)
    tell_notes(predictor.notes)
    if max_pixels is not None:
        predictor = predictor.with_limit(max_pixels)
    predictions = predictor.predict(pictures, top=top, on_error=tell)
    if as_json:
        rows = [
            {"file": p.source, "top": [{"class": c, "probability": v} for c, v in p.top]}
            for p in predictions
        ]
        print(json.dumps(rows, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["file", "rank", "class", "probability"])
        for p in predictions:
            writer.writerows(
                [p.source, rank, name, f"{value:.6f}"]
                for rank, (name, value) in enumerate(p.top, 1)
            )
    else:
        for p in predictions:
            print(p.source)
            for name, value in p.top:
                print(f"  {value:7.2%}  {name}")
    if unread:
        raise typer.Exit(1)


def export(
    source: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="What to export.")],
    format: Annotated[
        str, typer.Option(help="safetensors, timm, hf, onnx or torch-export.")
    ] = "safetensors",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to; export-FORMAT in the run by default."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a trained model as a folder that other libraries read.

    It holds the weights, config.json, preprocessor_config.json and a model card with the measured
    results. timm and Hugging Face load it with their own functions and give the same logits; the
    programs of onnx and torch-export are run at three batch sizes before they are kept. Examples:

    \b
        vitkit export runs/flowers/20260101-120000 --format timm
        vitkit export runs/flowers/20260101-120000 --format onnx --out served
    """
    from vitkit.app import export as export_run

    result = export_run(source, format, out)
    for file in result.files:
        print(f"{file}  {file.stat().st_size / 1e3:,.1f} kB")
    if result.error is not None:
        print(f"checked: the program's logits differ by at most {result.error:.1e} (relative)")


def models(
    pattern: Annotated[str, typer.Argument(help="Such as 'vit_*_32' or 'timm/*tiny*'.")] = "*",
    debug: Debug = False,
) -> None:
    """List the models that model.name may be."""
    from vitkit.app import model_rows
    from vitkit.cli.tables import model_lines

    rows = model_rows(pattern)
    if not rows:
        raise ConfigError(f"no model matches {pattern!r}; `vitkit models` lists all")
    # A terminal would break long lines anywhere; a pipe gets one line a model, whole.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in model_lines(rows, width):
        print(line)


def check_data(
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Look through a data set: counts, sizes, damaged files, duplicates, class balance.

    Takes the settings of train, or just a data set's name or a folder of pictures:

    \b
        vitkit check-data my_pictures/
        vitkit check-data cifar10 data.root=data
    """
    from vitkit.app import check_data as check
    from vitkit.config import load_config, split_arguments

    files, overrides = split_arguments(settings or [])
    named, files = _named_data(files)
    config = load_config(files, [*named, *overrides])
    try:
        report = check(config)
    except UnknownNameError as error:
        raise _neither_set_nor_folder(error) from error
    for line in report.lines():
        print(line)
    if report.damaged:
        raise typer.Exit(1)


def _named_data(files: list[str]) -> tuple[list[str], list[str]]:
    """A first argument that is a folder or a plain name stands for data, not for a YAML file."""
    if not files:
        return [], files
    first, rest = str(files[0]), files[1:]
    suffix = Path(first).suffix.lower()
    if suffix in YAML_SUFFIXES and not Path(first).is_dir():
        return [], files
    is_path = "/" in first.replace(os.sep, "/")
    if Path(first).is_file() or (suffix and not is_path and not Path(first).is_dir()):
        raise ConfigError(
            f"{first}: check-data looks through a folder of pictures (vitkit check-data "
            "my_pictures/), a data set by its name, or that of a YAML file"
        )
    if is_path or Path(first).is_dir():
        return ["data.name=image_folder", f"data.root={json.dumps(first)}"], rest
    return [f"data.name={json.dumps(first)}"], rest


def _neither_set_nor_folder(error: UnknownNameError) -> VitkitError:
    """What the name may have meant, where a folder has nearly that name."""
    close = nearest(error.name, [path.name for path in Path().iterdir() if path.is_dir()], n=1)
    if not close:
        return error
    return ConfigError(f"{error}; or did you mean the folder {close[0]}{os.sep}?")


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
