"""What `auto` stands for on this machine: the device, and the number format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitkit.config import RunConfig
from vitkit.errors import ConfigError, EvaluationError, VitkitError
from vitkit.nn import hardware

__all__ = [
    "best_device",
    "concrete_precision",
    "expect_shapes",
    "memory_advice",
    "multiplies_bfloat16",
    "process_count",
]

# Read once, at the first product on a GPU: a prediction before a deterministic training, perhaps.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def best_device(accelerator: str | torch.device) -> torch.device:
    """The device a name stands for; ``auto`` takes the fastest there is.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda``, ``cuda:1`` or ``mps``; or a device.

    Raises:
        ConfigError: no device's name, or this machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, index = str(accelerator).partition(":")
    kind = "cuda" if kind == "gpu" else kind
    if kind not in ("auto", "cpu", *present) or (index and not index.isdigit()):
        raise ConfigError(
            f"device {str(accelerator)!r}; allowed: auto, cpu, cuda, cuda:1 and so on, mps"
        )
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not present.get(kind, True) or int(index or 0) >= count:
        raise ConfigError(
            f"trainer.accelerator={accelerator}: this machine has no such device that torch can "
            'use; trainer.accelerator=auto (in Python device="auto") takes what it has'
        )
    if kind == "auto":
        kind = next((name for name, there in present.items() if there), "cpu")
    return torch.device(f"{kind}:{index}" if index and kind == "cuda" else kind)


def concrete_precision(setting: str, device: torch.device) -> str:
    """``auto`` resolved: bfloat16 where the device multiplies it in hardware, else float32.

    Args:
        setting: ``trainer.precision``.
        device: where the training runs.

    Raises:
        ConfigError: float16 on a CPU, where it would be bfloat16 under a wrong name.
    """
    if setting == "16-mixed" and device.type == "cpu":
        raise ConfigError(
            "trainer.precision=16-mixed: float16 trains on accelerators only; on a CPU take auto, "
            "bf16-mixed or 32-true"
        )
    if setting != "auto":
        return setting
    return "bf16-mixed" if multiplies_bfloat16(device) else "32-true"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are fast on a device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and hardware.MULTIPLIES_BFLOAT16


def expect_shapes(*, vary: bool) -> None:
    """Keep cuDNN's attention away where each batch, or each token, brings another shape: it is
    planned anew for each, which takes longer than a step. Holds until it is called again.
    """
    torch.backends.cuda.enable_cudnn_sdp(not vary)


@contextmanager
def memory_advice(advice: str, error: type[VitkitError] = EvaluationError) -> Iterator[None]:
    """Inside, a device whose memory is full is one line that says what to do.

    Args:
        advice: such as ``lower data.eval_batch_size``.
        error: what is raised.
    """
    try:
        yield
    except torch.OutOfMemoryError as full:
        raise error(f"out of memory; {advice}") from full


def process_count(config: RunConfig) -> int:
    """How many processes a training has: one a device.

    Args:
        config: for ``trainer.devices``; ``auto`` takes all graphics cards that are present.
    """
    devices = config.trainer.devices
    if isinstance(devices, int):
        return devices
    on_cards = best_device(config.trainer.accelerator).type == "cuda"
    return max(1, torch.cuda.device_count()) if on_cards else 1
