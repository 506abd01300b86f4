"""Where the model looked: its most confident mistakes, and the attention of every head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitkit.records import PredictionRecord
from vitkit.report.charts import figure
from vitkit.report.files import Run
from vitkit.report.layout import Section, quiet
from vitkit.report.markup import Markup, data_block, element
from vitkit.report.pictures import bytes_text
from vitkit.report.shown import Answers, Gallery, Scene
from vitkit.report.tables import Column, table
from vitkit.report.wording import percent

__all__ = ["attention", "mistakes"]

MOST_MISTAKES = 12
MOST_LISTED = 20


def mistakes(run: Run, gallery: Gallery | None, command: str) -> Section:
    """The most confident mistakes, with what the wrong answer was drawn from.

    Args:
        run: whose predictions are shown.
        gallery: their pictures, if there are any.
        command: that evaluates the run.
    """
    record = run.predictions
    if record is None:
        body = quiet("No predictions are kept of this run; for its mistakes: ", command)
        return Section("mistakes", "Mistakes", body)
    names = [str(name) for name in record.class_names]
    wrong = [s for s in gallery.scenes if s.predicted != s.target] if gallery else []
    wrong = sorted(wrong, key=lambda scene: -scene.confidence)[:MOST_MISTAKES]
    if wrong:
        return Section("mistakes", "Mistakes", _cards(wrong, names))
    answers = gallery.answers if gallery else Answers.of(record)
    return Section("mistakes", "Mistakes", _listed(record, answers, names, run.split))


def _cards(scenes: Sequence[Scene], names: Sequence[str]) -> Markup:
    cards = [element("li", *_card(scene, names)) for scene in scenes]
    heat = any(scene.heat for scene in scenes)
    explained = (
        " Beside each picture what speaks for the wrong class: gradient-weighted attention, the "
        "brighter the more (Chefer et al., 2021)."
        if heat
        else ""
    )
    data: dict[str, list[Any]] = {
        "place": [scene.index for scene in scenes],
        "right": [names[scene.target] for scene in scenes],
        "predicted": [names[scene.predicted] for scene in scenes],
        "probability": [scene.confidence for scene in scenes],
        "probability_of_right": [scene.of_target for scene in scenes],
    }
    return figure(
        "confident-mistakes",
        "Most confident mistakes",
        element("ul", *cards, class_="cards"),
        data=data,
        note=f"The images that the model was surest about and got wrong.{explained}",
        wide=True,
    )


def _card(scene: Scene, names: Sequence[str]) -> list[str]:
    right, said = names[scene.target], names[scene.predicted]
    shown = [_picture(scene, f"Image {scene.index}, {right}")]
    if scene.heat:
        over = element("img", src=scene.heat, alt=f"What speaks for {said}", class_="heat")
        shown.append(element("div", _picture(scene, "", "grey"), over, class_="layers"))
    text = element(
        "p",
        element("strong", said),
        f" {percent(scene.confidence, 1)}",
        element("br"),
        element("span", f"is {right}, {percent(scene.of_target, 1)}", class_="muted"),
        element("br"),
        element("span", f"image {scene.index:,}", class_="muted small-text"),
    )
    return [element("div", *shown, class_="pair"), text]


def _listed(record: PredictionRecord, answers: Answers, names: Sequence[str], split: str) -> Markup:
    """Without pictures: a table."""
    wrong = np.flatnonzero(answers.predicted != record.targets)
    if not len(wrong):
        return quiet(f"There are none: every one of the {len(record.targets):,} images is right.")
    order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:MOST_LISTED]
    values = {
        "place": record.indices[order].tolist(),
        "right": [names[i] for i in record.targets[order]],
        "predicted": [names[i] for i in answers.predicted[order]],
        "probability": answers.confidence[order].tolist(),
    }
    columns = [
        Column(f"place in {split}", values["place"]),
        Column("right", values["right"], str),
        Column("predicted", values["predicted"], str),
        Column("probability", values["probability"], percent, bar=True),
    ]
    shown = table("Most confident mistakes", columns, sortable=True)
    note = "No pictures are kept of this run: vitkit eval keeps some."
    return figure(
        "confident-mistakes", "Most confident mistakes", shown, data=values, note=note, wide=True
    )


def attention(run: Run, gallery: Gallery | None, command: str) -> Section:
    """The explorer: choose a patch and see where each head of each layer looks from there.

    Args:
        run: whose pictures are shown.
        gallery: those pictures and their attention maps; None if none are kept.
        command: that evaluates the run.
    """
    title = "Attention"
    if gallery is None:
        body = quiet("No pictures are kept of this run; for an attention explorer: ", command)
        return Section("attention", title, body)
    record = gallery.record
    if not record.maps.size:
        body = quiet(
            "No attention maps are kept: the model has no attention that can be read out, or maps "
            "too large for a page."
        )
        return Section("attention", title, body)
    names = [str(name) for name in gallery.predictions.class_names]
    return Section("attention", title, _explorer(gallery, names))


def _explorer(gallery: Gallery, names: Sequence[str]) -> Markup:
    scenes, heads = gallery.scenes, len(gallery.record.heads)
    choices = [_choice(scene, _said(scene, names)) for scene in scenes]
    return figure(
        "explorer",
        "Attention explorer",
        element("div", *choices, class_="choices", role="group", aria_label="Picture"),
        element(
            "div",
            _view(scenes[0], _fronts(gallery)),
            element("div", class_="heads", id="heads", style=f"--heads:{heads + 1}"),
            class_="explorer",
        ),
        data_block(_explored(gallery, names), id="attention-data"),
        note="Point at a patch, or tap it, and see what each head of each layer attends to from "
        "there: the brighter the more, the brightest being the largest weight of that map.",
        wide=True,
    )


def _prefix(gallery: Gallery) -> int:
    """Tokens in front of the patches."""
    rows, columns = gallery.record.grid.tolist()
    return int(gallery.record.maps.shape[-1]) - rows * columns


def _explored(gallery: Gallery, names: Sequence[str]) -> dict[str, Any]:
    """What the page's script needs to know of the maps."""
    record, scenes, prefix = gallery.record, gallery.scenes, _prefix(gallery)
    return {
        "grid": record.grid.tolist(),
        "tokens": int(record.maps.shape[-1]),
        "prefix": prefix,
        "layers": record.layers.tolist(),
        "heads": record.heads.tolist(),
        "maps": [bytes_text(record.maps[scene.number]) for scene in scenes],
        "peaks": [bytes_text(_as_bytes(record.peaks[scene.number])) for scene in scenes],
        "names": [_said(scene, names) for scene in scenes],
        "fronts": _fronts(gallery),
    }


def _view(scene: Scene, fronts: Sequence[str]) -> Markup:
    """The large picture, and whatever else can be asked from."""
    picture = element(
        "div",
        _picture(scene, "", id="view-image"),
        element("div", class_="patch", id="view-patch", aria_hidden="true"),
        class_="view",
        id="view",
        tabindex="0",
        role="group",
        aria_roledescription="picture of patches",
        aria_label="Picture. Arrow keys move from patch to patch",
        aria_describedby="view-note",
    )
    buttons = [
        element(
            "button",
            f"from {front}",
            type="button",
            class_="small",
            data_token=index,
        )
        for index, front in enumerate(fronts)
    ]
    return element(
        "div",
        picture,
        element("p", id="view-name", class_="view-name"),
        element("div", *buttons, class_="fronts") if fronts else None,
        element("p", class_="note", id="view-note", aria_live="polite"),
        class_="looking",
    )


def _choice(scene: Scene, name: str) -> Markup:
    return element(
        "button",
        _picture(scene, name),
        type="button",
        title=name,
        data_scene=scene.number,
        aria_pressed="true" if scene.number == 0 else "false",
    )


def _picture(scene: Scene, label: str, kind: str = "", *, id: str | None = None) -> Markup:
    """A scene as the page's style holds it: once, wherever it appears."""
    return element(
        "span",
        class_=f"scene scene-{scene.number} {kind}".strip(),
        role="img" if label else None,
        aria_label=label or None,
        aria_hidden=None if label else "true",
        id=id,
    )


def _said(scene: Scene, names: Sequence[str]) -> str:
    said = f"predicted as {names[scene.predicted]}"
    if scene.predicted == scene.target:
        said = "rightly predicted"
    return f"{names[scene.target]}, {said} ({percent(scene.confidence, 0)})"


def _fronts(gallery: Gallery) -> list[str]:
    """What the tokens in front of the patches are called."""
    named = [f"the {name}" for name in gallery.record.fronts.tolist()]
    prefix = _prefix(gallery)
    return named or [f"token {index + 1} of {prefix} in front" for index in range(prefix)]


def _as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Little-endian float32 as bytes."""
    return np.frombuffer(values.astype("<f4").tobytes(), dtype=np.uint8)
