"""What this processor multiplies in hardware: the facts on which kernels and precisions are chosen.

Plain constants, because torch.compile can guard on those.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = [
    "HAS_AMX",
    "HAS_AVX512",
    "HAS_ONEDNN_LINEAR",
    "MULTIPLIES_BFLOAT16",
    "ONEDNN_IS_QUICKER",
]


def _multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer says yes to any AVX-512, where the products are emulated too.
        return torch.cpu._is_avx512_bf16_supported() or HAS_AMX
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return known is not None and bool(known())  # some builds have no oneDNN


def _is_wide_amd(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether it is a processor of AMD's that does AVX-512 at full width: Zen 5, family 26, on.
    Before, AVX-512 went through half as wide units, and is no faster than the AVX2 that MKL takes.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False  # not Linux
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    family = facts.get("cpu family", "")
    return facts.get("vendor_id") == "AuthenticAMD" and family.isdigit() and int(family) >= 26


HAS_AVX512: bool = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether the CPU has AVX-512, and torch uses it."""

HAS_AMX: bool = torch.cpu._is_amx_tile_supported()
"""Whether the CPU multiplies tiles of bfloat16, as Intel's do from Sapphire Rapids on."""

MULTIPLIES_BFLOAT16: bool = _multiplies_bfloat16()
"""Whether the CPU multiplies bfloat16 matrices; elsewhere torch emulates, far slower."""

HAS_ONEDNN_LINEAR: bool = hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this torch has oneDNN's linear layer; some builds have not."""

ONEDNN_IS_QUICKER: bool = (
    HAS_AVX512 and _is_wide_amd() and torch.backends.mkl.is_available() and HAS_ONEDNN_LINEAR
)
"""Whether torch's default for float32 products, MKL, uses less of the CPU than oneDNN does."""
