"""What this processor multiplies in hardware: the facts on which kernels and precisions are chosen.

Plain constants, because torch.compile can guard on those.
"""

from __future__ import annotations

import platform

import torch

__all__ = ["HAS_AVX512", "MULTIPLIES_BFLOAT16"]


def _multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer says yes to any AVX-512, where the products are emulated too.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


HAS_AVX512: bool = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether the CPU has AVX-512, and torch uses it."""

MULTIPLIES_BFLOAT16: bool = _multiplies_bfloat16()
"""Whether the CPU multiplies bfloat16 matrices; elsewhere torch emulates, far slower."""
