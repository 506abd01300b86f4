"""Files and overrides to a checked :class:`RunConfig`, or one error that lists every fault."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vitkit.config.default import EMBEDDED_DEFAULT
from vitkit.config.faults import fault_lines, fields_of, located
from vitkit.config.files import dump_sections, parse_value, read_file
from vitkit.config.layers import fitting, layered, merge, name_in, replaced
from vitkit.config.run import RunConfig, contradictions, to_plain
from vitkit.data.config import ImageDataConfig
from vitkit.data.kinds import DATA_CONFIGS, data_class
from vitkit.errors import ConfigError, UnknownNameError, nearest
from vitkit.models.config import CONFIGS, ModelConfig, validate_model
from vitkit.models.presets import family_of, resolve_name
from vitkit.training.task_config import TASKS, ClassificationConfig, task_class

__all__ = [
    "Overrides",
    "describe_keys",
    "dump_yaml",
    "given_keys",
    "is_setting",
    "load_config",
    "override_words",
    "split_arguments",
    "suggest_key",
]

Overrides = Mapping[str, Any] | Sequence[str] | str
"""Settings over others: ``"section.key=value"`` strings, one of them, or {"section.key": value}."""

SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation  # type: ignore[misc]
    for name, field in RunConfig.model_fields.items()
    if name != "model"
}
SECTIONS |= {"data": ImageDataConfig, "task": ClassificationConfig}
"""Section -> its class, but for the model's; of data and task the usual one."""

OTHERS: dict[str, dict[str, type[BaseModel]]] = {
    "model": dict(CONFIGS),
    "data": dict(DATA_CONFIGS),
    "task": {name: kind for name, kind in TASKS.items() if kind is not ClassificationConfig},
}
"""Section -> the classes that ``name`` chooses in place of the usual one; of models, by family."""

SYNONYMS = {
    "arch": "model.name",
    "bs": "data.batch_size",
    "data": "data.name",
    "dataset": "data.name",
    "decay": "ema.decay",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "model": "model.name",
    "optimizer": "optimizer.name",
    "root": "data.root",
    "seed": "run.seed",
    "tokenizer": "data.tokenizer",
    "vocab_size": "data.vocab_size",
    "wd": "optimizer.weight_decay",
    "window": "data.window",
    "workers": "data.num_workers",
}
"""What other programs call them."""

OWN_CHOICES = {"data.name", "model.name"}
"""Settings that leave the embedded default: its recipe fits its own data and model only."""

LEARNED_SO = ("task", "ema")
"""Sections of the embedded default that fit its own task only."""

USUAL_TASK = ClassificationConfig.model_fields["name"].default


def is_setting(word: str) -> bool:
    """Whether a word is ``KEY=VALUE``: it has an ``=``, and no file is called so."""
    # Where a word is too long to be a name, Path.exists raises.
    return "=" in word and not os.path.exists(word)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(files, overrides): an argument with ``=`` is an override, one without, or a path that is
    there, is a file.

    Raises:
        ConfigError: a setting that was written without ``=``.
    """
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        section, dot, _ = argument.partition(".")
        if dot and section in RunConfig.model_fields and argument in _all_keys():
            value = after.removeprefix("=") or "..."
            raise ConfigError(f"{argument}: a setting is one word, {argument}={value}")
    settings = [word for word in arguments if is_setting(word)]
    return [word for word in arguments if word not in settings], settings


def suggest_key(name: str) -> str | None:
    """The dotted key that a lone word such as ``epochs`` may mean, or None."""
    word = name.strip("-").replace("-", "_").lower()
    if word in SYNONYMS:
        return SYNONYMS[word]
    by_last: dict[str, str] = {}
    for key in _all_keys():
        by_last.setdefault(key.rpartition(".")[2], key)
    close = nearest(word, by_last, n=1)
    return by_last[close[0]] if close else None


def override_words(overrides: Overrides) -> list[str]:
    """Overrides as ``"section.key=value"`` strings, without blanks around a key.

    Args:
        overrides: such strings, one of them, or a mapping of dotted keys to plain values.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    if not isinstance(overrides, Mapping):
        return [_without_blanks(word) for word in overrides]
    # JSON is YAML, but for its escapes of rare characters; what it does not know is text.
    values = ((k, json.dumps(v, default=str, ensure_ascii=False)) for k, v in overrides.items())
    return [f"{key.strip()}={value}" for key, value in values]


def given_keys(overrides: Overrides) -> list[str]:
    """The keys that overrides set, in their order. Args as of :func:`override_words`."""
    return [word.partition("=")[0] for word in override_words(overrides)]


def load_config(
    files: Sequence[str | Path] | str | Path = (),
    overrides: Overrides = (),
    *,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge ``base``, then the files from left to right, then the overrides; check the whole.

    With no file, no base and no choice of data or model, the embedded default is the base. Who
    names another optimiser than an earlier layer does leaves that one's rates and moments behind.

    Args:
        files: YAML files of sections, or one.
        overrides: ``"section.key=value"``, the value read as YAML 1.2; one may stand alone; or a
            mapping of dotted keys to values.
        base: a mapping of sections, such as a checkpoint's config.

    Raises:
        ConfigError: all faults at once, a line each.
    """
    files = [files] if isinstance(files, str | Path) else files
    overrides, keys = override_words(overrides), given_keys(overrides)
    faults: list[str] = []
    given = [_spelled_out(_nested(override, faults)) for override in overrides]
    values: dict[str, Any] = _spelled_out(base or {})
    if base is None and not files and not OWN_CHOICES & {*keys}:
        values = dict(EMBEDDED_DEFAULT)
        if any(name_in("task", layer) not in (None, USUAL_TASK) for layer in given):
            values = {name: part for name, part in values.items() if name not in LEARNED_SO}
    origins: dict[str, str] = {}
    for file in files:
        document = read_file(Path(file), faults)
        values = layered(values, _spelled_out(document.values))
        origins |= document.origins
    for layer in given:  # all names first: the order of settings on a line means nothing
        values = fitting(values, layer)
    for key, layer in zip(keys, given, strict=True):
        origins.pop(key, None)
        _forget(origins, replaced(values, layer))
        values = merge(values, layer)
    sections = _checked(values, faults)
    if not faults:
        config = RunConfig(**sections)
        faults = contradictions(config)
    if faults:
        raise ConfigError(located(fault, origins) for fault in faults)
    return config


def _without_blanks(override: str) -> str:
    """``a.b = value`` with its key as it is called; a value's blanks are left to YAML."""
    key, given, text = override.partition("=")
    return f"{key.strip()}={text}" if given else override


def _forget(origins: dict[str, str], keys: Iterable[str]) -> None:
    """Leave out where these keys were written, and those of the groups that they were."""
    for key in keys:
        for name in [name for name in origins if name == key or name.startswith(f"{key}.")]:
            del origins[name]


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """With ``task.finetune: lora``, short for its mode, written so that it merges with the rest."""
    task = values.get("task")
    mode = task.get("finetune") if isinstance(task, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(mode, str):
        return dict(values)
    return {**values, "task": {**task, "finetune": {"mode": mode}}}


def dump_yaml(config: RunConfig, header: str = "") -> str:
    """YAML that :func:`load_config` reads back to an equal config."""
    return dump_sections(to_plain(config), header)


def describe_keys() -> list[tuple[str, Any, str]]:
    """(dotted key, default, description) of every setting.

    Behind a section's usual keys (the model's are a ViT's) stand those that only another kind of
    model, ``data.name`` or ``task.name`` has, and those whose default is another one there.
    """
    rows: list[tuple[str, Any, str]] = []
    for name, section in {"model": CONFIGS["vit"], **SECTIONS}.items():
        usual = _described(section, name)
        rows += usual
        known = {key: default for key, default, _ in usual}
        for choice, other in OTHERS.get(name, {}).items():
            for key, default, text in _described(other, name):
                if key not in known or (default != known[key] and not key.endswith(".name")):
                    rows.append((key, default, f"{choice}: {text}"))
                    known.setdefault(key, default)
    return rows


def _checked(values: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Every section checked by its own class; faults are added to the list."""
    names = ["model", *SECTIONS]
    known = [key for name in names for key, _ in fields_of(_class(name, values.get(name)), name)]
    sections: dict[str, Any] = {}
    for name, given in values.items():
        if name not in names:
            close = nearest(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; sections: {', '.join(names)}"
            faults.append(f"{name}: unknown section{hint}")
            continue
        if not isinstance(given, Mapping):
            faults.append(f"{name}: given {given!r}, allowed: a group of keys")
            continue
        try:
            if name == "model":
                sections[name] = validate_model(dict(given))
            else:
                sections[name] = _chosen(name, given).model_validate(dict(given))
        except UnknownNameError as error:
            faults.append(f"{name}.name: {error}")
        except ValidationError as error:
            faults.extend(fault_lines(error, name, known))
    if "model" not in sections and "model" not in values:
        sections["model"] = validate_model({})
    return sections


def _nested(override: str, faults: list[str]) -> dict[str, Any]:
    """``a.b=value`` -> {"a": {"b": value}}."""
    key, given, text = override.partition("=")
    if not given:
        faults.append(f"{override!r}: an override is SECTION.KEY=VALUE, as in data.name=cifar10")
        return {}
    parts = key.split(".")
    if len(parts) < 2 or not all(parts):
        meant = suggest_key(key) if len(parts) == 1 else None
        faults.append(
            f"{override!r}: an override names a section and a key"
            + (f"; did you mean {meant}={text}?" if meant else ", as in data.name=cifar10")
        )
        return {}
    value, wrong = parse_value(text)
    faults.extend(f"{key}: {fault}" for fault in wrong)
    for part in reversed(parts):
        value = {part: value}
    result: dict[str, Any] = value
    return result


def _all_keys() -> list[str]:
    return [key for key, _, _ in describe_keys()]


def _class(section: str, given: Any) -> type[BaseModel]:
    """The class that knows a section's keys; the usual one where its name is wrong itself."""
    values = given if isinstance(given, Mapping) else {}
    try:
        return _model_class(values) if section == "model" else _chosen(section, values)
    except UnknownNameError:
        return CONFIGS["vit"] if section == "model" else SECTIONS[section]


def _chosen(section: str, given: Mapping[str, Any]) -> type[BaseModel]:
    """The class of any section but the model's."""
    if section == "task":
        return task_class(given)
    return data_class(given) if section == "data" else SECTIONS[section]


def _model_class(given: Mapping[str, Any]) -> type[ModelConfig]:
    name = given.get("name")
    return CONFIGS[family_of(resolve_name(name))] if isinstance(name, str) else CONFIGS["vit"]


def _described(model: type[BaseModel], prefix: str) -> list[tuple[str, Any, str]]:
    fields = fields_of(model, prefix)
    return [(key, field.default, field.description or "") for key, field in fields]
