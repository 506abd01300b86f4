"""The command that looks through a data set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from vitkit.cli.arguments import Settings
from vitkit.cli.options import Debug
from vitkit.errors import ConfigError, UnknownNameError, VitkitError, nearest

__all__ = ["check_data"]

YAML_SUFFIXES = (".yaml", ".yml")


def check_data(
    settings: Settings = None,
    name_all: Annotated[
        bool, typer.Option("--all", help="Name every damaged file, not the first 20 only.")
    ] = False,
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
    for line in report.lines(all_damaged=name_all):
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
    """There is no folder of that name either, but perhaps one of nearly that name."""
    close = nearest(error.name, [path.name for path in Path().iterdir() if path.is_dir()], n=1)
    hint = f"; did you mean {close[0]}{os.sep}?" if close else ""
    return ConfigError(f"{error}; nor is there a folder {error.name}{hint}")
