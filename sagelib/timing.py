"""Fair timing: every side in one run, in turn, medians with their spread, on the device that is there.

Numbers from two runs are never compared: machines are shared and warm up. `interleaved` gives each side one turn per
round, so that a ratio is taken within a round.
"""
import contextlib
import ctypes
import math
import statistics
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def interleaved(sides, rounds=9, warm=1, least=0.05):
    """Seconds a call of each side, name -> list, one a round. `sides` are functions without arguments, by name.

    Each is called `warm` times first; a turn repeats a side until it lasted `least` seconds, and counts the mean. On
    a GPU the clock waits for it.
    """
    if rounds < 1:
        raise ValueError(f"timing needs at least one round, not {rounds}")
    for _ in range(warm):
        for side in sides.values():
            side()
    calls = {name: max(1, math.ceil(least / max(_turn(side, 1), 1e-6))) for name, side in sides.items()}
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(_turn(side, calls[name]))
    return seconds


def _turn(side, calls):
    start = _now()
    for _ in range(calls):
        side()
    return (_now() - start) / calls


def spread(values):
    """Median, least and greatest of a list of numbers."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(seconds, others):
    """How many times as long the first took as the second, round by round: median, least, greatest."""
    return spread([a / b for a, b in zip(seconds, others, strict=True)])


def peak_memory(side, device="cpu"):
    """Bytes that a call needs at its peak beyond what was there before; None where the system cannot tell.

    On a GPU memory of tensors, on Linux that of the process, with what the allocator keeps.
    """
    side()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        side()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        _give_back()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        side()
        return max(0, _status("VmHWM") - before)
    except (OSError, KeyError):
        return None


def launches(side, device="cpu"):
    """What a call asks of the device: kernels, copies and fills on a GPU, elsewhere tensor operations but for views."""
    side()
    if torch.device(device).type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            side()
            torch.cuda.synchronize()
        return sum(e.device_type == torch.autograd.DeviceType.CUDA for e in seen.events())
    with _Count() as count:
        side()
    return count.operations


def operations(side):
    """Multiplications and additions that one call asks of convolutions and matrix products: forwards, and backwards.

    PyTorch's counter; element-wise work is not in it.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()
    with counter:
        side()
    total, kinds = counter.get_total_flops(), counter.get_flop_counts()["Global"]
    forwards = sum(n for kind, n in kinds.items() if str(kind) in ("aten.convolution", "aten.addmm"))
    return forwards, total - forwards


class _Whole(contextlib.nullcontext):
    parents = ("Global",)  # only the total: the counter's book-keeping for single modules fails under autograd.grad


class _Count(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += not function.is_view
        return function(*args, **(kwargs or {}))


def _now():
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _give_back():
    """What the C library keeps of freed memory, where it can be told to."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(lines[key].split()[0])


def of_methods(records, model, methods):
    """The newest record of step times on a network at its full width in which all `methods` took turns, or None."""
    found = [r for r in records if r["parameters"]["model"] == model
             and set(methods) <= {row["name"] for row in r["rows"]}
             and (model != "preactresnet18" or r["parameters"]["width"] == 64)]  # others are not timed narrower
    return found[-1] if found else None


def over_vanilla(record):
    """side -> its step over half of two vanilla steps, {median, low, high}, of a record of step times; {} for None."""
    rows = [row for row in record["rows"] if "ratio" in row] if record else []
    return {row["name"]: {k: 2 * v for k, v in row["ratio"].items()} for row in rows}
