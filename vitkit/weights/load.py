"""Weights into a model, with a word about every tensor that did not simply fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.models.registry import create_model
from vitkit.weights.fit import fit_kernel, fit_positions
from vitkit.weights.formats import (
    FORMATS,
    Format,
    Resampling,
    Translated,
    recognise,
    stranger,
    unwrapped,
)
from vitkit.weights.shapes import infer_section, told
from vitkit.weights.sources import Source, read_source
from vitkit.weights.stated import Stated

__all__ = ["LoadReport", "Loaded", "build_and_load", "load_weights"]

HEADS = ("head.", "head_dist.")
"""How the names of classifiers begin, but for those that a model of timm states itself."""
COUNTER = ".num_batches_tracked"
"""BatchNorm's, which older files lack; read by nothing where its momentum is a number."""
OWN_NAME = "vitkit"
SQUARE = (
    "positions taken to be a square grid, for nothing says another; if they are not, "
    "load_model(..., img_size=(height, width))"
)


@dataclass
class LoadReport:
    """What became of each tensor.

    Attributes:
        loaded: names taken as they were.
        resized: names resampled to the model's grid, patch size or channels.
        new: names of the model that the source lacks (a head for other classes): kept as they are.
        unused: names of the source that the model lacks.
        format: the layout that the source was in.
        preprocessing: what the weights expect of a picture, fields of ``Preprocessing`` as plain
            values: stated by the source, else the format's documented default, else nothing.
        class_names: of the head, where the source states them.
        notes: what else a person should know, a line each.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    format: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A short table, one line a kind."""
        rows = [("loaded", self.loaded), ("resized", self.resized)]
        rows += [("new", self.new), ("unused", self.unused)]
        lines = [f"{kind:8}{len(names):4}  {_some(names)}" for kind, names in rows if names]
        head = [f"{'format':14}{self.format}"] if self.format else []
        return [*head, *lines, *(f"{'note':14}{note}" for note in self.notes)]


@dataclass(frozen=True)
class Loaded:
    """A model built for its weights.

    Attributes:
        model: filled, in evaluation mode.
        section: the model section that rebuilds it.
        report: what became of each tensor.
    """

    model: nn.Module
    section: dict[str, Any]
    report: LoadReport


@dataclass(frozen=True)
class _Known:
    """A source, recognised and translated."""

    source: Source
    format: Format | None
    translated: Translated

    @property
    def name(self) -> str:
        return OWN_NAME if self.format is None else self.format.name

    @property
    def resampling(self) -> Resampling:
        return Resampling() if self.format is None else self.format.resampling


def load_weights(
    model: nn.Module, source: Mapping[str, Tensor] | str | Path, *, strict: bool = True
) -> LoadReport:
    """Load weights of any known layout into a model.

    The layout is recognised by the names. Learned positions are resampled to the model's grid as
    the layout's own library does it; patch kernels to the model's patch size and channels. A head
    for another number of classes stays as the model has it.

    Args:
        model: to fill, in place.
        source: see :func:`vitkit.weights.sources.read_source`; of a checkpoint of ours the averaged
            weights are taken, if there are any.
        strict: any other missing or left-over tensor is an error; False reports it instead.

    Raises:
        WeightsError: tensors that do not fit, all of them named; a file of another architecture.
    """
    found = read_source(source)
    known = _known(found, set(model.state_dict()))
    if known is None:
        raise _unknown(found)
    return _fill(model, known, strict=strict)


def build_and_load(
    source: Mapping[str, Tensor] | str | Path, *, strict: bool = True, **overrides: Any
) -> Loaded:
    """Build the model that weights belong to, by what the source states and by their shapes.

    Args:
        source: as for :func:`load_weights`.
        strict: as for :func:`load_weights`.
        overrides: fields of the model's section, such as ``img_size``, ``num_classes``,
            ``in_chans``, or ``num_heads`` where no rule finds it.

    Raises:
        WeightsError: not recognised, incomplete, or of an architecture that vitkit lacks.
        ConfigError: overrides that the model refuses.
    """
    found = read_source(source)
    section = found.stated.section
    known = _known(found, None if section is None else set())
    if known is None:
        raise _unknown(found)
    guessed = section is None and "pos_embed" in known.translated.tensors
    guessed = guessed and _stated_grid(known) is None and overrides.get("img_size") is None
    if section is None:
        section = _section(known, overrides)
    section = {**section, **{key: value for key, value in overrides.items() if value is not None}}
    model = create_model(section["name"], **{k: v for k, v in section.items() if k != "name"})
    report = _fill(model, known, strict=strict)
    if guessed:
        report.notes.append(SQUARE)
    return Loaded(model.eval(), section, report)


def _known(source: Source, own: set[str] | None) -> _Known | None:
    """The source in our names; None if its layout is unknown.

    Args:
        source: as read.
        own: the model's names, where there is a model: a file in just these needs no other look. An
            empty set stands for a model that the source states itself.
    """
    if own is not None and not own:
        return _Known(source, None, Translated(source.needed, dict(source.spare)))
    as_it_is = own is not None and set(source.tensors) <= own
    tensors, left = (source.tensors, {}) if as_it_is else unwrapped(source.needed)
    if not as_it_is:
        left = {**source.spare, **left}
    found = recognise(_shapes(tensors))
    if own is not None and set(tensors) <= own:
        return _Known(source, found, Translated(tensors, left))
    if found is not None:
        translated = found.translate(tensors)
        translated.left.update(left)
        return _Known(source, found, translated)
    if own is not None and own & set(tensors):
        return _Known(source, None, Translated(tensors, left))
    return None


def _section(known: _Known, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a model that its source does not spell out."""
    arguments: dict[str, Any] = dict(known.format.arguments) if known.format else {}
    arguments |= known.translated.arguments
    arguments |= known.source.stated.arguments
    if overrides.get("num_heads"):
        arguments["num_heads"] = overrides["num_heads"]
    section = _inferred(known.translated.tensors, arguments, overrides.get("img_size"))
    size = known.source.stated.preprocessing.get("img_size")
    if size is not None and all(a % b == 0 for a, b in zip(size, _patch(section), strict=True)):
        section["img_size"] = list(size)
    return section


def _inferred(
    tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], size: Any
) -> dict[str, Any]:
    """By the shapes; where these leave the grid open, it may be that of the size asked for."""
    try:
        return infer_section(tensors, arguments)
    except WeightsError:
        if size is None or arguments.get("img_size") is not None:
            raise
        return infer_section(tensors, {**arguments, "img_size": size})


def _patch(section: Mapping[str, Any]) -> tuple[int, int]:
    patch = section.get("patch_size", 1)
    return (patch, patch) if isinstance(patch, int) else tuple(patch)


def _fill(model: nn.Module, known: _Known, *, strict: bool) -> LoadReport:
    tensors, own = dict(known.translated.tensors), model.state_dict()
    report = LoadReport(
        format=known.name,
        preprocessing=_preprocessing(known),
        class_names=known.source.stated.class_names,
    )
    stated = _stated_grid(known)
    fitted = fit_positions(model, tensors, known.resampling, stated)
    if stated is None and "pos_embed" in fitted:
        report.notes.append(SQUARE)
    fitting: dict[str, Tensor] = {}
    faults = []
    for name, tensor in {**tensors, **fitted}.items():
        if name not in own:
            report.unused.append(name)
        elif name in fitted and tensor.shape == own[name].shape:
            fitting[name] = tensor
            report.resized.append(name)
        elif tensor.shape == own[name].shape:
            fitting[name] = tensor
            report.loaded.append(name)
        elif (kernel := fit_kernel(model, name, tensor)) is not None:
            fitting[name] = kernel
            report.resized.append(name)
        elif name.startswith(_heads(model)) and tensor.shape[1:] == own[name].shape[1:]:
            report.new.append(name)
        else:
            shapes = f"{tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
            faults.append(f"{name}: given {shapes}")
    faults += _gaps(model, tensors, report, strict=strict)
    if faults:
        raise WeightsError(_misfit(model, known, faults))
    _tell_left(report, known.translated.left)
    model.load_state_dict(fitting, strict=False)
    return report


def _gaps(
    model: nn.Module, tensors: Mapping[str, Tensor], report: LoadReport, *, strict: bool
) -> list[str]:
    """What the source lacks goes into the report; if strict, that and what is over are faults."""
    head_differs = bool(report.new)
    own = model.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    report.new += missing
    if not strict:
        return []
    heads = _heads(model)
    faults = [f"{name}: missing" for name in missing if not name.startswith(heads)]
    spare = report.unused
    if not head_differs and getattr(model, "num_classes", None) == 0:
        spare = [name for name in spare if not name.startswith(heads)]
    return faults + [f"{name}: not in the model" for name in spare]


def _heads(model: nn.Module) -> tuple[str, ...]:
    """How the names of a model's classifiers begin."""
    stated: Any = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    named = (stated,) if isinstance(stated, str) else tuple(stated)
    return (*HEADS, *(f"{name}." for name in named))


def _preprocessing(known: _Known) -> dict[str, Any]:
    """What the source states on top of its format's documented default."""
    default = dict(known.format.preprocessing) if known.format else {}
    stated: Stated = known.source.stated
    return {**default, **stated.preprocessing}


def _stated_grid(known: _Known) -> tuple[int, int] | None:
    """The grid of the positions, where the source says its image size."""
    stated = known.source.stated
    section = stated.section or stated.arguments
    size = section.get("img_size")
    kernel = known.translated.tensors.get("patch_embed.proj.weight")
    if size is None or kernel is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return height // int(kernel.shape[2]), width // int(kernel.shape[3])


def _tell_left(report: LoadReport, left: Mapping[str, str]) -> None:
    """Known leftovers: among the unused, with the reason of each kind."""
    report.unused += left
    for reason in dict.fromkeys(left.values()):
        names = [name for name, why in left.items() if why == reason]
        report.notes.append(f"not used: {_some(names, 1)}: {reason}")


def _misfit(model: nn.Module, known: _Known, faults: list[str]) -> str:
    shown = "; ".join(faults[:6]) + (f"; and {len(faults) - 6} more" if len(faults) > 6 else "")
    return f"the weights do not fit {type(model).__name__}: {shown}{_looks_like(known)}"


def _looks_like(known: _Known) -> str:
    """What model the file would fit, as far as its shapes tell."""
    if known.format is None and known.source.stated.section is None:
        name = stranger(_shapes(known.translated.tensors))
        return f" (the file looks like {name})" if name else ""
    try:
        what = told(known.source.stated.section or _section(known, {}))
    except (WeightsError, KeyError, ValueError, IndexError):
        return f" (the file looks like {known.name})"
    return f" (the file looks like {known.name}: {what})"


def _unknown(source: Source) -> WeightsError:
    tensors, _ = unwrapped(source.tensors)
    name = stranger(_shapes(tensors))
    formats = ", ".join(dict.fromkeys(each.name for each in FORMATS))
    if name:
        return WeightsError(
            f"{source.where} looks like {name}, which vitkit does not read; it reads {formats}"
        )
    return WeightsError(
        f"{source.where} is of no layout that vitkit knows (it has {_some(list(tensors))}); "
        f"it reads {formats}"
    )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
