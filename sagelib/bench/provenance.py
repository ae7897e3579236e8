"""Where a number comes from: the hardware, the software, the commit."""
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from ..machine import cores


def hardware(device="cpu"):
    """What the run ran on."""
    gpu = torch.cuda.get_device_properties(device) if torch.device(device).type == "cuda" else None
    return {"device": torch.device(device).type,
            "gpu": gpu and gpu.name, "gpu_memory_gb": gpu and gpu.total_memory / 2**30,
            "cpu": _cpu_name(), "cores": cores(), "threads": torch.get_num_threads()}


def versions():
    """The software that decides numbers."""
    def installed(name):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        **{name: installed(name)
           for name in ("torchvision", "numpy", "sagelib")}
    }


def commit():
    """The commit this library was run from, and whether files differed from it; None outside a
    checkout."""
    def git(*words):
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words],
                              capture_output=True, text=True, check=True).stdout.strip()
    try:
        return {
            "id": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                platform.machine())
