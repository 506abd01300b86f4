"""The folder of a run that never ran: every file a page may be made of, the same each time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from vitkit.records import ExampleRecord, PredictionRecord, Record

__all__ = ["NAMES", "Page", "hostile", "write_run"]

NAMES = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
POINTING = ("aria-labelledby", "aria-describedby", "for")

hostile = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'&<>`=cmd|' /C calc'!A0",
    "\u2028line\u2029 ]]> <!-- \x00\x1b[31m \ud800",
)
"""Names that a careless page would run, close something with, or fail to write."""


def write_run(
    folder: Path,
    *,
    names: Sequence[str] = NAMES,
    count: int = 300,
    skill: float = 3.0,
    seed: int = 0,
    maps: tuple[int, int, int] | None = (3, 2, 4),
    pictures: int = 60,
    scenes: int = 8,
) -> Path:
    """Write all files of a run.

    Args:
        folder: to write into.
        names: of the classes.
        count: test images.
        skill: how much the right class's logit stands out.
        seed: of everything.
        maps: layers, heads and side of the grid of the attention maps; None: no maps.
        pictures, scenes: that are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    classes = len(names)
    targets = np.arange(count, dtype=np.int64) % classes
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), targets] += skill
    predicted = logits.argmax(1)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    indices = np.arange(count, dtype=np.int64)
    PredictionRecord(logits, targets, indices, confusion, np.array(names, dtype=np.str_)).write(
        folder / "predictions.npz"
    )
    accuracy = float((predicted == targets).mean())
    _write_records(folder, names, confusion, accuracy, count)
    _write_curves(folder, rng)
    kept = np.sort(rng.permutation(count)[: min(pictures, count)])
    wrong, right = np.flatnonzero(predicted != targets), np.flatnonzero(predicted == targets)
    studied = np.concatenate([wrong[: scenes // 2], right])[:scenes]
    layers, heads, side = maps or (0, 0, 0)
    tokens = side * side + 1 if maps else 0
    weights = rng.random((len(studied), layers, heads, tokens, tokens))
    ExampleRecord(
        indices=kept,
        targets=targets[kept],
        pictures=rng.integers(0, 256, (len(kept), 32, 32, 3), dtype=np.uint8),
        studied=studied,
        scenes=rng.integers(0, 256, (len(studied), 32, 32, 3), dtype=np.uint8),
        layers=np.arange(layers, dtype=np.int64),
        heads=np.arange(heads, dtype=np.int64),
        grid=np.array([side, side], dtype=np.int64),
        fronts=np.array(["class token"] if maps else [], dtype=np.str_),
        maps=(255 * weights).round().astype(np.uint8),
        peaks=np.full(weights.shape[:-1], 0.5, dtype=np.float32),
        relevance=rng.random((len(studied), side, side)).astype(np.float16),
    ).write(folder / "examples.npz")
    return folder


def _write_records(
    folder: Path, names: Sequence[str], confusion: np.ndarray[Any, Any], accuracy: float, count: int
) -> None:
    facts: dict[str, Any] = {
        "checkpoint": "last.ckpt",
        "model": "vit_made_up",
        "data": "made up",
        "task": "classification",
        "parameters": 1_234_567,
        "epochs": 4.0,
        "steps": 400,
        "seed": 0,
        "precision": "32-true",
        "images_per_second": 1000.5,
        "hardware": "a machine",
        "threads": 2,
        "git_commit": "0123456789ab",
        "vitkit_version": "0.1.0",
        "torch_version": "2.14.1",
        "wall_seconds": 83.2,
    }
    Record({"test/loss": 0.5, "test/acc": accuracy}, facts).write(folder / "results.json")
    edges = np.linspace(0, 1, 16)
    table = {
        "low": edges[:-1].tolist(),
        "high": edges[1:].tolist(),
        "images": [0, *range(1, 15)],
        "confidence": [float("nan"), *((edges[1:-1] + edges[2:]) / 2).tolist()],
        "accuracy": [float("nan"), *np.linspace(0.1, 0.9, 14).tolist()],
    }
    right, said = confusion.sum(1), confusion.sum(0)
    diagonal = np.diag(confusion)
    per_class = {
        "class": list(names),
        "images": right.tolist(),
        "precision": (diagonal / np.maximum(said, 1)).tolist(),
        "recall": (diagonal / np.maximum(right, 1)).tolist(),
        "f1": (2 * diagonal / np.maximum(right + said, 1)).tolist(),
    }
    metrics = {
        "test/loss": 0.5,
        "test/acc": accuracy,
        "test/ece": 0.043,
        "test/ece_scaled": 0.012,
        "test/temperature": 1.31,
        "test/acc_low": accuracy - 0.02,
        "test/acc_high": accuracy + 0.02,
    }
    facts = {**facts, "images": count, "split": "test", "confidence": 0.95}
    tables = {"classes": per_class, "reliability": table, "reliability_scaled": table}
    Record(metrics, facts, tables).write(folder / "eval.json")
    corrupted = {"corruption": ["gaussian_noise", "fog", "jpeg_compression"]}
    levels = {f"severity_{s}": [accuracy * (1 - s / 8), accuracy, 0.1] for s in range(1, 6)}
    shifted = {"test/pgd/8_255/acc": 0.12, "test/occluded/0.5/acc": 0.4, "test/corrupted/err": 0.3}
    Record(shifted, facts, {"corruptions": {**corrupted, **levels}}).write(
        folder / "eval-shift.json"
    )
    speeds = {
        "cost/parameters": 1_234_567.0,
        "cost/gflops": 0.172,
        "cost/activations": 812_345.0,
        "cost/peak_memory_mb": 41.2,
        "speed/latency_ms": 4.21,
        "speed/images_per_second": 812.4,
        "speed/best_batch": 32.0,
    }
    rates = {"batch": [1, 2, 4, 8, 16, 32], "images_per_second": [237, 400, 600, 700, 790, 812.4]}
    Record(speeds, facts, {"rates": rates}).write(folder / "eval-speed.json")
    config = (
        "model:\n  name: vit_made_up\n\ndata:\n  name: made_up\n\noptimizer:\n  lr: 0.003\n\n"
        "run:\n  dir: null\n  seed: 0\n"
    )
    (folder / "config.yaml").write_text(config, encoding="utf-8")


def _write_curves(folder: Path, rng: np.random.Generator) -> None:
    lines = ["step,epoch,train/loss,lr,val/loss,val/acc,seconds,images_per_second"]
    for step in range(400):
        loss = 2.3 * np.exp(-step / 120) + 0.1 * rng.random()
        lines.append(f"{step},{step // 100},{loss:.4f},{0.003 * (1 - step / 400):.6f},,,,")
        if step % 100 == 99:
            share = 1 - np.exp(-step / 200)
            lines.append(f"{step},{step // 100},,,{1.5 - share:.4f},{share:.4f},{step / 9:.2f},990")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Page(HTMLParser):
    """A page taken apart; whatever is wrong with its structure is in ``faults``.

    Args:
        text: of the page.

    Attributes:
        faults: a line each.
        ids: of all elements.
        tags: how often each element occurs.
        text: that is shown, behind one another.
        data: the blocks of data, by id or class.
        scripts: that would be run.
        addresses: values of src and href.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.tags: dict[str, int] = {}
        self.shown: list[str] = []
        self.data: dict[str, Any] = {}
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self._pointed: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.faults += [f"id {i!r} twice" for i in set(self.ids) if self.ids.count(i) > 1]
        self.faults += [f"nothing has the id {i!r}" for i in self._pointed if i not in self.ids]
        self.text = " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if len(given) != len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        for name in POINTING:
            self._pointed += given.get(name, "").split()
        for name in ("src", "href"):
            if name in given:
                self.addresses.append(given[name])
                if given[name].startswith("#"):
                    self._pointed.append(given[name][1:])
        for name in given:
            if name.startswith("on"):
                self.faults.append(f"<{tag}> has {name}")
        if tag == "img" and "alt" not in given:
            self.faults.append("a picture without a word for it")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> where {self._open[-1:] or 'nothing'} is open")
        elif self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            given = self.attributes[-1][1]
            if given.get("type") == "application/json":
                name = given.get("id") or f"{given.get('class', '')}"
                self.data.setdefault(name, []).append(json.loads(data))
            else:
                self.scripts.append(data)
        elif inside not in ("style", "title"):
            self.shown.append(data)
