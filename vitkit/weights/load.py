"""Weights into a model, with a word about every tensor that did not simply fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitkit.errors import WeightsError
from vitkit.models.patches import as_pair
from vitkit.models.presets import READS, family_of, resolve_name
from vitkit.models.registry import create_model
from vitkit.weights.fit import (
    OFFSETS,
    TEXT_POSITIONS,
    first_rows,
    fit_kernel,
    fit_offsets,
    fit_positions,
    pixel_kernel,
)
from vitkit.weights.formats import (
    FORMATS,
    Format,
    Resampling,
    Translated,
    recognise,
    stranger,
    unwrapped,
)
from vitkit.weights.guesses import SQUARE, guessed, guessed_statistics
from vitkit.weights.heads import head_prefixes, match_classes, otherwise_pooled
from vitkit.weights.load_report import LoadReport, some
from vitkit.weights.shapes import infer_section, told
from vitkit.weights.sources import Source, read_source
from vitkit.weights.stated import Stated

__all__ = ["Loaded", "build_and_load", "load_weights"]

COUNTER = ".num_batches_tracked"
"""BatchNorm's count of batches. Older files lack it; only a momentum of None makes it matter."""
OWN_NAME = "vitkit"
NORM_BEHIND = "fc_norm."
HEAD = "head.weight"
OTHER_OFFSETS = f"{OFFSETS} is of another grid: offsets that it lacks take its farthest bias"
NORM_MOVED = "the norm before the pooling; the model has a new one behind it"
OTHER_POOLING = "a head behind another pooling than the model's"


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
        if self.format is None or self.source.stated.section is not None:
            return Resampling()  # ours: as the model itself resizes them
        return self.format.resampling


def load_weights(
    model: nn.Module,
    source: Mapping[str, Tensor] | str | Path,
    *,
    strict: bool = True,
    class_names: Sequence[str] = (),
) -> LoadReport:
    """Load weights of any known layout into a model.

    The layout is recognised by the names. Learned positions are resampled to the model's grid as
    the layout's own library does it, relative ones cut or continued; patch kernels are resampled to
    the model's patch size and channels. A head for another number of classes stays as the model has
    it.

    Args:
        model: to fill, in place.
        source: see :func:`vitkit.weights.sources.read_source`; of a checkpoint of ours the averaged
            weights are taken, if there are any.
        strict: any other missing or left-over tensor is an error; False reports it instead.
        class_names: what the rows of the model's head mean. Where the source states its own, rows
            are taken by name, and the head stays the model's if one of these is not among them.

    Raises:
        WeightsError: tensors that do not fit, all of them named; a file of another architecture.
    """
    found = read_source(source)
    known = _known(found, set(model.state_dict()))
    if known is None:
        raise _unknown(found)
    return _fill(model, known, strict=strict, class_names=class_names)


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
    known = _known(found, set()) if section is None else _as_stated(found)
    if known is None:
        raise _unknown(found)
    _require_pictures(known)
    inferred = section is None
    if section is None:
        known = _read_by_class_token(known)
        section = _section(known, overrides)
    wanted = {key: value for key, value in overrides.items() if value is not None}
    section = {**section, **wanted}
    model = create_model(section["name"], **{k: v for k, v in section.items() if k != "name"})
    report = _fill(model, known, strict=strict)
    if inferred:
        tensors, stated = known.translated.tensors, {**_arguments(known), **wanted}
        grid_known = _stated_grid(model, known) is not None or "img_size" in wanted
        act_known = "act_layer" in {**found.stated.arguments, **wanted}
        report.notes += guessed(
            section, tensors, stated, grid_known=grid_known, act_known=act_known
        )
    return Loaded(model.eval(), section, report)


def _require_pictures(known: _Known) -> None:
    """Refuse models of words: what is built here is handed over with its preprocessing of pictures.

    Raises:
        WeightsError: it is one, by its own section or by its layout.
    """
    where, section = known.source.where, known.source.stated.section
    if section is not None and family_of(resolve_name(section["name"])) in READS:
        raise WeightsError(
            f"{where} holds {section['name']}, which reads words, not pictures; use it with: "
            "vitkit generate (a language model), vitkit translate, or vitkit eval"
        )
    if known.format is not None and known.format.reads_words:
        raise WeightsError(
            f"{where} is {known.name}, which reads words, not pictures; train it on a text with "
            "model.weights=, or fill a model of its size with vitkit.load_weights"
        )


def _as_stated(source: Source) -> _Known:
    """A source in the names of the model that it states itself."""
    return _Known(source, None, Translated(source.needed, dict(source.spare)))


def _known(source: Source, own: set[str]) -> _Known | None:
    """The source in our names; None if its layout is unknown.

    Args:
        source: as read.
        own: the names of a model, empty without one: a file in just these needs no other look.
    """
    as_it_is = bool(own) and set(source.tensors) <= own
    tensors, left = (source.tensors, {}) if as_it_is else unwrapped(source.needed)
    if not as_it_is:
        left = {**source.spare, **left}
    found = recognise(_shapes(tensors))
    if own and set(tensors) <= own:
        return _Known(source, found, Translated(tensors, left))
    if found is not None:
        translated = found.translate(tensors)
        translated.left.update(left)
        return _Known(source, found, translated)
    if own & set(tensors):
        return _Known(source, None, Translated(tensors, left))
    return None


def _section(known: _Known, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a model that its source does not spell out."""
    arguments = _arguments(known)
    # No shape shows them, and presets differ in them.
    arguments |= {key: overrides[key] for key in ("num_heads", "act_layer") if overrides.get(key)}
    section = _inferred(known.translated.tensors, arguments, overrides.get("img_size"))
    size = known.source.stated.preprocessing.get("img_size")
    if size is not None and all(a % b == 0 for a, b in zip(size, _patch(section), strict=True)):
        section["img_size"] = list(size)
    return section


def _arguments(known: _Known) -> dict[str, Any]:
    """Constructor arguments that do not have to be inferred: of the format, of the source."""
    arguments: dict[str, Any] = dict(known.format.arguments) if known.format else {}
    return {**arguments, **known.translated.arguments, **known.source.stated.arguments}


def _read_by_class_token(known: _Known) -> _Known:
    """A distilled model with one head alone: no head reads its second token, which makes that a
    register.
    """
    tensors = known.translated.tensors
    if "head_dist.weight" in tensors or not {"dist_token", "head.weight"} <= set(tensors):
        return known
    renamed = {"reg_token" if n == "dist_token" else n: tensor for n, tensor in tensors.items()}
    return replace(known, translated=replace(known.translated, tensors=renamed))


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


def _fill(
    model: nn.Module, known: _Known, *, strict: bool, class_names: Sequence[str] = ()
) -> LoadReport:
    own, given = model.state_dict(), known.translated.tensors
    if heads := otherwise_pooled(model, given):
        given = {name: tensor for name, tensor in given.items() if name not in heads}
        known.translated.left.update(dict.fromkeys(heads, OTHER_POOLING))
    theirs = known.source.stated.class_names
    tensors, matched = match_classes(model, given, theirs, class_names)
    report = LoadReport(
        format=known.name,
        preprocessing=_preprocessing(known),
        class_names=theirs,
        published_as=known.source.stated.published_as,
        of_imagenet=known.format is not None and known.format.of_imagenet,
        embeds=known.translated.embeds,
        notes=[*known.translated.notes, *([matched] if matched else [])],
    )
    default = {} if known.format is None else known.format.preprocessing
    if default and not known.source.stated.preprocessing.get("mean"):
        report.notes.append(guessed_statistics(default, known.name))
    foreseen = head_prefixes(model)
    if moved := _norm_before_pool(model, given):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in moved}
        known.translated.left.update(dict.fromkeys(moved, NORM_MOVED))
        foreseen += (NORM_BEHIND,)
    if known.format is not None and known.format.reads_words and HEAD in own:
        # Where its head is its embedding, a head apart begins as that.
        tensors = {HEAD: tensors["words.tokens.weight"], **tensors}
    stated = _stated_grid(model, known)
    fitted = fit_positions(model, tensors, known.resampling, stated)
    if stated is None and "pos_embed" in fitted:
        report.notes.append(SQUARE)
    if offsets := fit_offsets(model, tensors):
        fitted |= offsets
        report.notes.append(OTHER_OFFSETS)
    fitting, faults = _placed(model, tensors, fitted, report)
    faults += _gaps(model, tensors, report, foreseen, strict=strict)
    if faults:
        raise WeightsError(_misfit(model, known, faults))
    _tell_left(report, known.translated.left)
    model.load_state_dict(fitting, strict=False)
    return report


def _placed(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    fitted: Mapping[str, Tensor],
    report: LoadReport,
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that the model takes, and a fault for each that no rule makes fit; the report
    tells which are which.

    Args:
        model: that takes them.
        tensors: in its names.
        fitted: those that take the place of some because they have been made to fit.
        report: is added to.
    """
    own, heads = model.state_dict(), head_prefixes(model)
    taken: dict[str, Tensor] = {}
    faults: list[str] = []
    for name, tensor in {**tensors, **fitted}.items():
        if name not in own:
            report.unused.append(name)
        elif tensor.shape == own[name].shape:
            taken[name] = tensor
            (report.resized if name in fitted else report.loaded).append(name)
        elif (resized := _resized(model, name, tensor, own[name])) is not None:
            taken[name] = resized
            report.resized.append(name)
        elif name.startswith(heads) and tensor.shape[1:] == own[name].shape[1:]:
            report.new.append(name)
        else:
            shapes = f"{tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
            faults.append(f"{name}: given {shapes}")
    return taken, faults


def _resized(model: nn.Module, name: str, given: Tensor, wanted: Tensor) -> Tensor | None:
    """A tensor of another shape than the one wanted, made to fit; None if no rule does that."""
    rows = first_rows(given, wanted) if name == TEXT_POSITIONS else None
    return fit_kernel(model, name, given) if rows is None else rows


def _gaps(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    report: LoadReport,
    foreseen: tuple[str, ...],
    *,
    strict: bool,
) -> list[str]:
    """What the source lacks goes into the report; if strict, that and what is over are faults, but
    for what begins as one of ``foreseen``.
    """
    head_differs = bool(report.new)
    own = model.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith(COUNTER)]
    report.new += missing
    if not strict:
        return []
    faults = [f"{name}: missing" for name in missing if not name.startswith(foreseen)]
    spare = report.unused
    if not head_differs and getattr(model, "num_classes", None) == 0:
        spare = [name for name in spare if not name.startswith(head_prefixes(model))]
    return faults + [f"{name}: not in the model" for name in spare]


def _preprocessing(known: _Known) -> dict[str, Any]:
    """What the source states on top of its format's documented default."""
    default = dict(known.format.preprocessing) if known.format else {}
    stated: Stated = known.source.stated
    return {**default, **stated.preprocessing}


def _stated_grid(model: nn.Module, known: _Known) -> tuple[int, int] | None:
    """The grid of the positions, where the source says its image size."""
    stated = known.source.stated
    section = stated.section or stated.arguments
    size = section.get("img_size")
    kernel = known.translated.tensors.get(pixel_kernel(model))
    if size is None or kernel is None:
        return None
    height, width = as_pair(size)
    embed: Any = getattr(model, "patch_embed", None)
    if hasattr(embed, "patch_size"):
        return height // int(kernel.shape[2]), width // int(kernel.shape[3])
    # Convolutions in a row, which are the model's own, or their weights would not fit.
    return embed.grid_of(height, width) if hasattr(embed, "grid_of") else None


def _norm_before_pool(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """The last norm of an encoder without a head, where the model's own lies behind its pooling:
    masked autoencoders are fine-tuned so, with a new one.
    """
    own = model.state_dict()
    if "norm.weight" in own or "fc_norm.weight" not in own:
        return []
    if any(name.startswith((*head_prefixes(model), NORM_BEHIND)) for name in tensors):
        return []
    return [name for name in ("norm.weight", "norm.bias") if name in tensors]


def _tell_left(report: LoadReport, left: Mapping[str, str]) -> None:
    """Known leftovers: among the unused, with the reason of each kind."""
    report.unused += left
    for reason in dict.fromkeys(left.values()):
        names = [name for name, why in left.items() if why == reason]
        report.notes.append(f"not used: {some(names, 1)}: {reason}")


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
        f"{source.where} is of no layout that vitkit knows (it has {some(list(tensors))}); "
        f"it reads {formats}"
    )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
