"""A trained run, for the chapters that look inside one: model, CIFAR-10's pictures, results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import vitkit
from examples.story import style
from vitkit.config import load_config
from vitkit.data.config import ImageDataConfig
from vitkit.data.splits import ResidentSplit
from vitkit.errors import VitkitError

__all__ = ["measured", "model_of", "pictures_of"]


def model_of(options: style.Options, preset: str, **fresh: object) -> nn.Module:
    """The run's model; with ``--quick`` a fresh one of the preset.

    Raises:
        SystemExit: neither a run nor ``--quick``.
    """
    if options.quick:
        torch.manual_seed(0)
        return vitkit.create_model(preset, **fresh).eval()
    return _loaded(options).model


def pictures_of(options: style.Options, numbers: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """Test pictures by their numbers, uint8 (B, 3, 32, 32), and as the run's model reads them.

    With ``--quick`` both are noise, the second float (B, 3, size, size).
    """
    if options.quick:
        torch.manual_seed(0)
        images = torch.randint(256, (len(numbers), 3, 32, 32), dtype=torch.uint8)
        return images, torch.randn(len(numbers), 3, size, size)
    fit = _loaded(options).preprocessing
    config = load_config([_run(options) / "config.yaml"], [])
    test = vitkit.load_data(ImageDataConfig(name="cifar10", root=config.data.root)).test
    assert isinstance(test, ResidentSplit)
    images = test.images[list(numbers)]
    return images, fit(torch.stack([fit.prepare_image(image) for image in images]))


def measured(options: style.Options) -> dict[str, str]:
    """Test accuracy in percent and minutes of the run, as a page states them; of a run alone."""
    if options.quick:
        return {}
    path = _run(options) / "results.json"
    if not path.exists():
        raise SystemExit(f"error: there is no {path}: has its training ended?")
    results = json.loads(path.read_text(encoding="utf-8"))
    return {
        "accuracy": f"{100 * results['test/acc']:.2f}",
        "minutes": f"{results['wall_seconds'] / 60:.1f}",
    }


def _loaded(options: style.Options) -> vitkit.Predictor:
    try:
        return vitkit.load(_run(options), device="cpu")
    except VitkitError as error:
        raise SystemExit(f"error: {error}") from None


def _run(options: style.Options) -> Path:
    if options.run is None:
        raise SystemExit("which model? give the folder of the run that the page trains, or --quick")
    return Path(options.run)
