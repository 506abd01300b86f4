"""Where and with what a run was made: versions, hardware, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from vitkit.records import Plain

__all__ = ["environment_facts", "peak_memory_mb", "process_seconds"]

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

IMPORTED = time.perf_counter()
MB = 1e6
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "numpy")


def environment_facts(device: torch.device | None = None) -> dict[str, Plain]:
    """Flat facts for ``results.json``.

    Args:
        device: that did the work; None: the fastest one here.
    """
    facts: dict[str, Plain] = {"vitkit_version": _version("vitkit")}
    facts |= {f"{name.replace('-', '_')}_version": _version(name) for name in PACKAGES}
    facts["python_version"] = platform.python_version()
    facts["hardware"] = _hardware(device)
    facts["threads"] = torch.get_num_threads()
    facts["git_commit"] = _git_commit()
    return facts


def process_seconds() -> float:
    """How long this process has been running; where the system does not tell, since the import."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - IMPORTED


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory so far, in 10^6 bytes: of tensors on a CUDA device, else of this process.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / MB, 1)
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB, 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hardware(device: torch.device | None) -> str:
    on_cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    if on_cuda:
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} CPU cores"


def _git_commit() -> str | None:
    """Commit of the source tree that runs, with ``+`` behind it where files were changed."""
    here = Path(__file__).resolve().parent
    try:
        if Path(_git(here, "rev-parse", "--show-toplevel")) / "vitkit" != here.parent:
            return None  # installed inside somebody's own repository
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True, timeout=5
    )
    return done.stdout.strip()
