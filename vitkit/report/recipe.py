"""What it takes to do it again: the command, the config, the machine; and every number there is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from vitkit.report.charts import figure
from vitkit.report.files import Run, labels_of
from vitkit.report.layout import Section, code_block, quiet
from vitkit.report.markup import Markup, element, joined
from vitkit.report.tables import Column, pairs_table, table
from vitkit.report.wording import metric_text, plain_text

__all__ = [
    "compared_chapters",
    "differences",
    "eval_command",
    "numbers",
    "recipe",
    "train_command",
]

ENVIRONMENT = (
    ("weights", "weights"),
    ("checkpoint", "checkpoint"),
    ("hardware", "hardware"),
    ("threads", "threads"),
    ("precision", "precision"),
    ("seed", "seed"),
    ("git_commit", "commit"),
    ("vitkit_version", "vitkit"),
    ("torch_version", "torch"),
    ("torchvision_version", "torchvision"),
    ("pytorch_lightning_version", "pytorch-lightning"),
    ("timm_version", "timm"),
    ("numpy_version", "numpy"),
    ("python_version", "Python"),
)


def eval_command(run: Run, suite: str = "") -> str:
    """That evaluates the run.

    Args:
        run: to be evaluated.
        suite: of the command, if not the usual one.
    """
    words = [str(run.folder)]
    found = (run.standard, run.shift, run.others, run.speed)
    records = [record for record in found if record is not None]
    checkpoint = records[0].facts.get("checkpoint") if records else None
    of_split = f"-{run.split}"
    another = run.suffix.removesuffix(of_split) or not run.config
    if another and isinstance(checkpoint, str):
        words, model = [checkpoint], str(run.fact("model"))
        data = f"data.name={run.fact('data')}"
        if not run.config and records[0].facts.get("format") is not None:  # weights, no checkpoint
            words = [checkpoint, data]
        elif not run.config and model.startswith("timm/"):
            words = [f"timm:{model.removeprefix('timm/')}", f"weights={checkpoint}", data]
    if run.suffix.endswith(of_split):  # its files are named so where all splits are asked for
        words += ["--split", run.split if suite else "all"]
    return _line("eval", *words, *(["--suite", suite] if suite else []))


def train_command(run: Run) -> str:
    """That trains the same again, in a folder of its own."""
    words = [str(run.folder / "config.yaml")]
    if run.settings().get("run.dir") is not None:
        words.append("run.dir=null")
    return _line("train", *words)


def recipe(run: Run) -> Section:
    """The chapter of one run."""
    parts: list[Markup | None] = []
    if run.config:
        commit = run.fact("git_commit")
        lines = [train_command(run)]
        if isinstance(commit, str):
            lines.insert(0, f"# vitkit {run.fact('vitkit_version')}, commit {commit}")
        settings = run.settings()
        parts.append(
            figure(
                "command",
                "To do it again",
                code_block("\n".join(lines), "the command"),
                data={"command": [train_command(run)], "commit": [commit]},
                wide=True,
            )
        )
        parts.append(
            figure(
                "config",
                "Settings",
                element(
                    "details",
                    element("summary", f"All {len(settings):,} settings, as they were resolved"),
                    code_block(run.config.strip(), "the settings"),
                ),
                data={"key": list(settings), "value": [_value(v) for v in settings.values()]},
                wide=True,
            )
        )
    else:
        parts.append(quiet("No config.yaml here: what trained this model is not known."))
    facts = [(label, run.fact(key)) for key, label in ENVIRONMENT if run.fact(key) is not None]
    if facts:
        parts.append(
            figure(
                "environment",
                "Environment",
                pairs_table("Environment", facts),
                data={"what": [k for k, _ in facts], "value": [_value(v) for _, v in facts]},
            )
        )
    parts.append(numbers([run]))
    return Section("recipe", "Recipe", element("div", joined(parts), class_="figures"))


def numbers(runs: Sequence[Run]) -> Markup | None:
    """Every metric of every record, a column each run."""
    names = list(dict.fromkeys(n for run in runs for record in run.records for n in record.metrics))
    if not names:
        return None
    labels = labels_of(runs) if len(runs) > 1 else ["value"]
    values = [[run.metric(name) for name in names] for run in runs]
    shown = [
        [metric_text(name, value) for name, value in zip(names, column, strict=True)]
        for column in values
    ]
    columns = [Column("metric", names, str)]
    columns += [Column(label, column, str) for label, column in zip(labels, shown, strict=True)]
    data: dict[str, list[object]] = {"metric": list(names)}
    data |= {label: list(column) for label, column in zip(labels, values, strict=True)}
    return figure(
        "numbers",
        "Every number",
        element(
            "details",
            element("summary", f"{len(names):,} metrics"),
            table("All metrics", columns),
        ),
        data=data,
        wide=len(runs) > 1,
    )


def compared_chapters(runs: Sequence[Run]) -> list[Section]:
    """The last chapters of several runs: the settings in which they differ, and all numbers."""
    parts = (
        ("settings-chapter", "Settings", differences(runs)),
        ("all", "Every number", numbers(runs)),
    )
    return [Section(key, name, element("div", part, class_="figures")) for key, name, part in parts]


def differences(runs: Sequence[Run]) -> Markup | None:
    """The settings in which runs differ, a column each."""
    settings = [run.settings() for run in runs]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    differ = [
        key
        for key in keys
        if key not in ("run.dir", "run.name")
        and len({repr(one.get(key)) for one in settings if one}) > 1
    ]
    if not any(settings):
        return quiet("None of the runs has a config.yaml to be compared.")
    if not differ:
        return quiet("All settings are the same.")
    columns = [Column("setting", differ, str)]
    data: dict[str, list[object]] = {"setting": list(differ)}
    for label, one in zip(labels_of(runs), settings, strict=True):
        shown = [_value(one.get(key)) for key in differ]
        columns.append(Column(label, shown, str))
        data[label] = list(shown)
    shown_table = table("Settings that differ", columns)
    return figure("settings", "Settings that differ", shown_table, data=data, wide=True)


def _value(value: object) -> str:
    return ", ".join(map(plain_text, value)) if isinstance(value, list) else plain_text(value)


def _line(*words: str) -> str:
    return shlex.join(["vitkit", *words])
