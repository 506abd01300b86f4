"""A model as a program that runs without vitkit: ONNX, torch.export; checked before it is kept.

Both take normalised float32 images (B, channels, height, width), any B, and give logits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vitkit.errors import ConfigError, WeightsError, first_line

__all__ = ["BATCHES", "TOLERANCE", "write_onnx", "write_torch_export"]

BATCHES = (1, 2, 5)
"""Batch sizes at which a program must agree with its model."""
TOLERANCE = 1e-4
"""Largest difference that is accepted, over the largest logit: what float32 sums of another order
may come to."""
SEED = 0


def write_onnx(model: nn.Module, shape: tuple[int, int, int], path: Path) -> float:
    """Write ``model.onnx`` and run it with onnxruntime.

    Args:
        model: in evaluation mode, on the CPU.
        shape: (channels, height, width) of its images.
        path: of the file; removed again if it does not agree.

    Returns:
        The largest relative error.

    Raises:
        ConfigError: the extra ``onnx`` is not installed.
        WeightsError: the model cannot be written, or the file gives other logits.
    """
    try:
        import onnxruntime  # an extra
        import onnxscript  # an extra  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--format onnx needs {error.name}, which is not installed; pip install 'vitkit[onnx]'"
        ) from error

    def convert() -> None:
        torch.onnx.export(
            model,
            (_images(2, shape),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    _written("ONNX", convert)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"images": images.numpy()})[0]))

    return _checked("ONNX", model, run, shape, path)


def write_torch_export(model: nn.Module, shape: tuple[int, int, int], path: Path) -> float:
    """Write ``model.pt2``, load it again and run it.

    Args:
        model: in evaluation mode, on the CPU.
        shape: (channels, height, width) of its images.
        path: of the file; removed again if it does not agree.

    Returns:
        The largest relative error.

    Raises:
        WeightsError: the model cannot be written, or the file gives other logits.
    """

    def convert() -> None:
        batch = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (_images(2, shape),), dynamic_shapes=batch)
        torch.export.save(program, path)

    _written("torch.export", convert)
    with _quiet():
        loaded = torch.export.load(path).module()
    return _checked("torch.export", model, loaded, shape, path)


def _written(what: str, convert: Callable[[], None]) -> None:
    """Trace and write; these libraries print and warn a lot that nobody can do anything about."""
    try:
        with _quiet(), torch.no_grad():
            convert()
    except Exception as error:  # whatever a tracer stumbles over
        reason = first_line(error)
        raise WeightsError(f"this model cannot be written as {what}: {reason}") from error


def _checked(
    what: str,
    model: nn.Module,
    run: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    path: Path,
) -> float:
    worst = 0.0
    with torch.no_grad(), _quiet():
        for count in BATCHES:
            images = _images(count, shape)
            wanted, got = model(images), run(images)
            if wanted.shape != got.shape:
                worst = float("inf")
                break
            largest = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
            error = float((wanted - got).abs().max() / largest)
            if not error <= worst:  # NaN is no error that max() would keep
                worst = error
            if not worst <= TOLERANCE:
                break
    if not worst <= TOLERANCE:
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"{what} gives other logits than the model (relative error {worst:.1e}, allowed "
            f"{TOLERANCE:.0e}); the file was removed"
        )
    return worst


def _images(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Normal noise, the same each time."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(count, *shape, generator=generator)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
