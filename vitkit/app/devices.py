"""What `auto` stands for on this machine: the device, and the number format."""

from __future__ import annotations

import platform

import torch

__all__ = ["best_device", "concrete_precision", "multiplies_bfloat16"]


def best_device(accelerator: str) -> torch.device:
    """The device an accelerator's name stands for; ``auto`` takes the fastest there is."""
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return torch.device("mps")
    return torch.device("cpu")


def concrete_precision(setting: str, device: torch.device) -> str:
    """``auto`` resolved: bfloat16 where the device multiplies it in hardware, else float32.

    Args:
        setting: ``trainer.precision``.
        device: where the training runs.
    """
    if setting != "auto":
        return setting
    return "bf16-mixed" if multiplies_bfloat16(device) else "32-true"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are fast here.

    A CPU without instructions for them emulates: several hundred times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer says yes to any AVX-512, where the products are emulated too.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
