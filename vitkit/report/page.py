"""One run's page: what it is and what it reached above, the chapters below."""

from __future__ import annotations

from vitkit.report.classes import classes
from vitkit.report.files import Run
from vitkit.report.layout import document
from vitkit.report.learning import learning
from vitkit.report.looking import attention, mistakes
from vitkit.report.markup import Markup, element
from vitkit.report.measures import calibration, cards, shift, speed
from vitkit.report.recipe import eval_command, recipe
from vitkit.report.shown import gallery_of
from vitkit.report.wording import SPACE, compact, duration, metric_text, percent, plain_text

__all__ = ["headline", "run_page"]

FEW = 4
"""Metrics shown of a model that is neither tested for accuracy nor for loss."""


def run_page(run: Run) -> str:
    """The page of a run, made of its files alone: the same bytes for the same files."""
    gallery = gallery_of(run)
    evaluate = eval_command(run)
    sections = [learning(run.curves)]
    if run.predictions is not None or run.fact("task") in (None, "classification"):
        sections += [
            classes(run, gallery, evaluate),
            mistakes(run, gallery, evaluate),
            attention(run, gallery, evaluate),
            calibration(run, evaluate),
            shift(run, eval_command(run, "shift")),
            speed(run, eval_command(run, "speed")),
        ]
    sections.append(recipe(run))
    style = gallery.style if gallery else ""
    return document(f"{run.name} \u00b7 vitkit", _opening(run), sections, style=style)


def headline(run: Run) -> str:
    """A sentence: which model on which data reached what."""
    model, data = run.evaluated("model") or "A model", run.evaluated("data")
    what = f"{model} on {data}" if data else f"{model}"
    accuracy, record = run.measured("acc"), run.record_of("acc")
    images = record.facts.get("images") if record is not None else None
    if accuracy is None:
        loss = run.measured("loss")
        return f"{what}: {run.split} loss {loss:.4f}." if loss is not None else f"{what}."
    if images is None and run.predictions is not None:
        images = len(run.predictions.targets)
    of = f" of {plain_text(images)}" if images is not None else ""
    interval = _interval(run)
    between = f", {interval[0]} interval {interval[1]}" if interval else ""
    views = run.standard.facts.get("tta", "none") if run.standard else "none"
    how = "" if views == "none" else f" (test-time augmentation: {views})"
    return f"{what}: {percent(accuracy)}{of} {run.split} images right{how}{between}."


def _interval(run: Run) -> tuple[str, str] | None:
    """(level, range) of the accuracy: Wilson's, which has a width where all images are right too;
    of older records the bootstrap's.
    """
    for kind in ("acc_wilson", "acc"):
        low, high = run.measured(f"{kind}_low"), run.measured(f"{kind}_high")
        if low is not None and high is not None:
            share = run.standard.facts.get("confidence", 0.95) if run.standard else 0.95
            level = f"{100 * float(str(share)):.3g}{SPACE}%"
            return level, f"{percent(low)} to {percent(high)}"
    return None


def _opening(run: Run) -> Markup:
    """Title, sentence, the numbers that count."""
    return element(
        "section",
        element("p", "Report", class_="eyebrow"),
        element("h1", run.name, id="summary-heading"),
        element("p", headline(run), class_="lead"),
        cards(_numbers(run)),
        id="summary",
        class_="summary",
        aria_labelledby="summary-heading",
    )


def _numbers(run: Run) -> list[tuple[str, str, str]]:
    """(what, number, a word on it), of all that is known."""
    items: list[tuple[str, str, str]] = []

    def add(what: str, value: float | None, shown: str, more: str = "") -> None:
        if value is not None:
            items.append((what, shown, more))

    accuracy, top5, loss = (run.measured(name) for name in ("acc", "acc5", "loss"))
    interval = _interval(run)
    add("Accuracy", accuracy, percent(accuracy), ": ".join(interval) if interval else "")
    add("Top 5", top5, percent(top5))
    unit = "nats an image" if accuracy is not None else ""
    add("Loss", loss, metric_text("loss", loss), unit)
    add("Calibration error", run.measured("ece"), percent(run.measured("ece")), "15 bins")
    parameters = _number(run.fact("parameters")) or run.metric("cost/parameters")
    add("Parameters", parameters, compact(parameters))
    if run.results is not None:
        seconds, epochs = (_number(run.results.facts.get(k)) for k in ("wall_seconds", "epochs"))
        steps = _number(run.results.facts.get("steps"))
        add("Time in all", seconds, duration(seconds), "start to results")
        more = f"{compact(steps)} steps" if steps is not None else ""
        add("Epochs", epochs, f"{epochs:g}" if epochs is not None else "", more)
    if accuracy is None and loss is None:
        for name in [n for record in run.records for n in record.metrics][:FEW]:
            add(name, run.metric(name), metric_text(name, run.metric(name)))
    rate = run.metric("speed/images_per_second")
    add("Images a second", rate, compact(rate), "forward")
    return items


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
