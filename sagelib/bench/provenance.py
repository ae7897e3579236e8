"""Where a number comes from: the hardware, the software, the commit."""
from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..machine import cores

if TYPE_CHECKING:
    from .schema import Record


def hardware(device: torch.device | str = "cpu") -> Record:
    """The machine and the device of a run, as its record says them."""
    kind = torch.device(device).type
    gpu = torch.cuda.get_device_properties(device) if kind == "cuda" else None
    return {"device": kind, "gpu": gpu and gpu.name,
            "gpu_memory_gb": gpu and gpu.total_memory / 2**30,
            "cpu": _cpu_name(), "cores": cores(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str | None]:
    """The versions of the software that decides numbers; None for a package that is missing."""
    def installed(name):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {"python": platform.python_version(), "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: installed(name) for name in ("torchvision", "numpy", "sagelib")}}


def commit() -> Record | None:
    """The commit of this library, and whether files differ from it; None outside a checkout."""
    def git(*words):
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words],
                              capture_output=True, text=True, check=True).stdout.strip()
    try:
        return {"id": git("rev-parse", "HEAD"),
                "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                platform.machine())
