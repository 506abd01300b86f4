"""Published weights: the model that they belong to, and the preprocessing that they want."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitkit import models  # as a whole: timm takes seconds to import, and few weights need it
from vitkit.app.build import build_from_checkpoint
from vitkit.app.expectations import stated_preprocessing
from vitkit.app.runs import find_checkpoint
from vitkit.data.preprocess import Preprocessing
from vitkit.errors import WeightsError
from vitkit.models.patches import as_pair
from vitkit.weights import Checkpoint, LoadReport, build_and_load, own_checkpoint

__all__ = ["LoadedModel", "load_classifier", "load_model", "published_names"]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights. Unpacks as ``model, preprocessing``.

    Attributes:
        model: in evaluation mode, on the CPU.
        preprocessing: from a picture to its input.
        class_names: by index; empty where the source does not say.
        section: the model section that rebuilds it.
        report: what became of each tensor.
    """

    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    section: dict[str, Any]
    report: LoadReport

    def __iter__(self) -> Iterator[Any]:
        """The model, then its preprocessing."""
        return iter((self.model, self.preprocessing))


def load_model(
    source: Mapping[str, Tensor] | str | Path, *, strict: bool = True, **overrides: Any
) -> LoadedModel:
    """Build the model that weights belong to, fill it, and say what it expects of a picture.

    The layout is recognised by the names, the sizes by the shapes, the rest by a ``config.json``
    where there is one.

    Args:
        source: a state dict; a file of weights; a run folder or checkpoint of ours; a folder with
            ``config.json`` and weights; ``hf-hub:<owner>/<model>``, ``timm/<model>`` or
            ``torchvision/<model>``, which may need the network.
        strict: leftovers that nobody foresaw are an error; False reports them instead.
        overrides: fields of the model's section: ``num_classes`` (a fresh head), ``img_size``
            (positions are resampled), ``in_chans``, ``num_heads`` where no rule finds it, ...

    Raises:
        WeightsError: nothing there, damaged, unsafe, out of reach, or of another architecture; the
            message says which it looks like.
        ConfigError: overrides that the model refuses.
    """
    if not isinstance(source, Mapping):
        if (Path(source) / "checkpoints").is_dir():
            source = find_checkpoint(source)
        if not overrides and (own := own_checkpoint(source)) is not None:
            return _from_checkpoint(own)
    loaded = build_and_load(source, strict=strict, **overrides)
    size, names = loaded.section["img_size"], loaded.report.class_names
    preprocessing = stated_preprocessing(
        loaded.report.preprocessing,
        img_size=as_pair(size),
        in_chans=int(loaded.section.get("in_chans", 3)),
    )
    return LoadedModel(
        loaded.model,
        preprocessing,
        names if len(names) == loaded.section.get("num_classes") else (),
        loaded.section,
        loaded.report,
    )


def load_classifier(source: str | Path, **overrides: Any) -> LoadedModel:
    """As :func:`load_model`, of weights that tell classes apart.

    Raises:
        WeightsError: also where there is no classifier, or a part of the model has no weights: what
            it says would be left to chance.
    """
    loaded = load_model(source, **overrides)
    if not loaded.section.get("num_classes"):
        raise WeightsError(
            f"{source} has no classifier; fine-tune it first (vitkit train ... "
            f"model.weights={source}), or look at its features: vitkit probe {source}"
        )
    if loaded.report.embeds:
        raise WeightsError(
            f"{source}: its head makes embeddings of images and no scores of classes; fine-tune it "
            f"first (vitkit train ... model.weights={source}), or look at its features: vitkit "
            f"probe {source}"
        )
    if new := loaded.report.new:
        raise WeightsError(
            f"{source} has no weights that fit {', '.join(new[:3])}; leave out settings of the "
            f"model that ask for others, or fine-tune it first (model.weights={source})"
        )
    return loaded


def published_names(loaded: LoadedModel) -> tuple[str, ...]:
    """What ImageNet calls the classes of one of its published classifiers, which does not say.

    For people to read, never to match data by: a folder of ImageNet calls them by their numbers in
    WordNet.

    Args:
        loaded: with the head that it came with.

    Returns:
        By index; empty where the source states names of its own, or nothing says that it is one.
    """
    report, count = loaded.report, int(loaded.section.get("num_classes") or 0)
    if report.class_names or not (report.published_as or report.of_imagenet):
        return ()
    if any(name.startswith("head") for name in report.new):
        return ()
    return models.imagenet_names(count, report.published_as)


def _from_checkpoint(checkpoint: Checkpoint) -> LoadedModel:
    """As it was trained, adapters merged."""
    model, preprocessing, info = build_from_checkpoint(checkpoint)
    names = info.class_names if checkpoint.model.get("num_classes") != 0 else ()
    report = LoadReport(
        loaded=list(checkpoint.weights),
        format="vitkit",
        preprocessing=checkpoint.preprocessing,
        class_names=names,
    )
    return LoadedModel(model, preprocessing, names, checkpoint.model, report)
