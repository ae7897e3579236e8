"""What this process may use of its machine."""
import functools
import importlib
import os


def cores():
    """How many processor cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def triton_kernels(package, name):
    """The module `name` of a package, whose kernels are in Triton; None where Triton is not
    installed."""
    try:
        return importlib.import_module(f"{package}.{name}")
    except ImportError:
        return None
