"""Files and overrides to a checked :class:`RunConfig`, or one error that lists every fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vitkit.config.default import EMBEDDED_DEFAULT
from vitkit.config.faults import fault_lines, field_keys
from vitkit.config.files import dump_sections, merge, parse_value, read_file
from vitkit.config.run import RunConfig, contradictions, to_plain
from vitkit.errors import ConfigError, UnknownNameError, nearest
from vitkit.models.config import CONFIGS, ModelConfig, validate_model
from vitkit.models.presets import family_of, resolve_name

__all__ = ["describe_keys", "dump_yaml", "load_config", "split_arguments"]

SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation  # type: ignore[misc]
    for name, field in RunConfig.model_fields.items()
    if name != "model"
}

OWN_CHOICES = ("data.name=", "model.name=")
"""Overrides that leave the embedded default: its recipe fits its own data and model only."""


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(files, overrides): an argument with ``=`` is an override, one without is a file."""
    files = [argument for argument in arguments if "=" not in argument]
    return files, [argument for argument in arguments if "=" in argument]


def load_config(
    files: Sequence[str | Path] | str | Path = (),
    overrides: Sequence[str] | str = (),
    *,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge ``base``, then the files from left to right, then the overrides; check the whole.

    With no file, no base and no choice of data or model, the embedded default is the base.

    Args:
        files: YAML files of sections, or one.
        overrides: ``"section.key=value"``, the value read as YAML 1.2; one may stand alone.
        base: a mapping of sections, such as a checkpoint's config.

    Raises:
        ConfigError: all faults at once, a line each.
    """
    files = [files] if isinstance(files, str | Path) else files
    overrides = [overrides] if isinstance(overrides, str) else overrides
    faults: list[str] = []
    values: dict[str, Any] = dict(base or {})
    if base is None and not files and not any(o.startswith(OWN_CHOICES) for o in overrides):
        values = EMBEDDED_DEFAULT
    origins: dict[str, str] = {}
    for file in files:
        document = read_file(Path(file), faults)
        values = merge(values, document.values)
        origins |= document.origins
    for override in overrides:
        values = merge(values, _nested(override, faults))
        origins.pop(override.partition("=")[0], None)
    sections = _checked(values, origins, faults)
    if faults:
        raise ConfigError(faults)
    config = RunConfig(**sections)
    faults = contradictions(config)
    if faults:
        raise ConfigError(faults)
    return config


def dump_yaml(config: RunConfig, header: str = "") -> str:
    """YAML that :func:`load_config` reads back to an equal config."""
    return dump_sections(to_plain(config), header)


def describe_keys() -> list[tuple[str, Any, str]]:
    """(dotted key, default, description) of every setting; the model's are those of a ViT."""
    rows = _described(CONFIGS["vit"], "model")
    for name, section in SECTIONS.items():
        rows += _described(section, name)
    return rows


def _checked(
    values: Mapping[str, Any], origins: Mapping[str, str], faults: list[str]
) -> dict[str, Any]:
    """Every section checked by its own class; faults are added to the list."""
    known = [key for name, section in SECTIONS.items() for key in field_keys(section, name)]
    known += field_keys(_model_class(values.get("model")), "model")
    names = ["model", *SECTIONS]
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
            check = validate_model if name == "model" else SECTIONS[name].model_validate
            sections[name] = check(dict(given))
        except UnknownNameError as error:
            faults.append(f"model.name: {error}")
        except ValidationError as error:
            faults.extend(fault_lines(error, name, known, origins))
    if "model" not in sections and "model" not in values:
        sections["model"] = validate_model({})
    return sections


def _nested(override: str, faults: list[str]) -> dict[str, Any]:
    """``a.b=value`` -> {"a": {"b": value}}."""
    key, _, text = override.partition("=")
    parts = key.strip().split(".")
    if len(parts) < 2 or not all(parts):
        faults.append(
            f"{override!r}: an override names a section and a key, as in data.name=cifar10"
        )
        return {}
    value, wrong = parse_value(text)
    faults.extend(f"{key}: {fault}" for fault in wrong)
    for part in reversed(parts):
        value = {part: value}
    result: dict[str, Any] = value
    return result


def _model_class(section: Any) -> type[ModelConfig]:
    """The class that knows the model's keys; the ViT's where the name is wrong itself."""
    name = section.get("name") if isinstance(section, Mapping) else None
    try:
        return CONFIGS[family_of(resolve_name(name))] if isinstance(name, str) else CONFIGS["vit"]
    except UnknownNameError:
        return CONFIGS["vit"]


def _described(model: type[BaseModel], prefix: str) -> list[tuple[str, Any, str]]:
    rows: list[tuple[str, Any, str]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += _described(kind, f"{prefix}.{name}")
        else:
            rows.append((f"{prefix}.{name}", field.default, field.description or ""))
    return rows
