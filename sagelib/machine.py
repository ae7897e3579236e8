"""What this process may use of its machine."""
from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def cores() -> int:
    """How many processor cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def triton_kernels(package: str, name: str) -> ModuleType | None:
    """The module `name` of a package, with kernels in Triton; None where Triton is missing."""
    try:
        return importlib.import_module(f"{package}.{name}")
    except ImportError:
        return None
