"""Fair timing: every side in one run, in turn, medians with their spread, on the device that is
there.

Numbers from two runs are never compared: machines are shared and warm up. `interleaved` gives each
side one turn per round, so that a ratio is taken within a round.
"""
import contextlib
import csv
import ctypes
import math
import statistics
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .paper_recipe import WIDTH


def interleaved(sides, rounds=9, warm=1, least=0.05):
    """Seconds a call of each side, name -> list, one a round. `sides` are functions without
    arguments, by name.

    Each is called `warm` times first; a turn repeats a side until it lasted `least` seconds, and
    counts the mean. On a GPU the clock waits for it.
    """
    if rounds < 1:
        raise ValueError(f"timing needs at least one round, not {rounds}")
    for _ in range(warm):
        for side in sides.values():
            side()
    calls = {
        name: max(1, math.ceil(least / max(_turn(side, 1), 1e-6)))
        for name, side in sides.items()
    }
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
    """How many times as long the first took as the second, round by round: median, least,
    greatest."""
    return spread([a / b for a, b in zip(seconds, others, strict=True)])


def peak_memory(side, device="cpu"):
    """Bytes that a call needs at its peak beyond what was there before; None where the system
    cannot tell.

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
    """What a call asks of the device: kernels, copies and fills on a GPU, elsewhere tensor
    operations but for views."""
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
    """Multiplications and additions that one call asks of convolutions and matrix products:
    forwards, and backwards.

    PyTorch's counter; element-wise work is not in it.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()
    with counter:
        side()
    total, kinds = counter.get_total_flops(), counter.get_flop_counts()["Global"]
    forwards = sum(n for kind, n in kinds.items()
                   if str(kind) in ("aten.convolution", "aten.addmm"))
    return forwards, total - forwards


class _Whole(contextlib.nullcontext):
    # only the total: the counter's book-keeping for single modules fails under autograd.grad
    parents = ("Global",)


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
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line)
    return 1024 * int(lines[key].split()[0])


def timed_network(record):
    """(name, width) of the network that a record of step times really timed; None for what the
    record does not say.

    A record with the parameter `network` says what was built. Older records have only the `width`
    that was asked for: the experiment gave it to PreActResNet18 and built every other network at
    its own width.
    """
    asked = record["parameters"]
    if "network" in asked:
        return asked["network"]["name"], asked["network"].get("width")
    name, width = asked.get("model"), asked.get("width")
    # 0 asks for the network's own
    return name, width if name == "preactresnet18" and width != 0 else WIDTH.get(name)


def at_full_width(record):
    """Whether a record of step times timed its network at the paper's width; True for a network not
    in the paper, False where the record names none."""
    name, width = timed_network(record)
    return bool(name) and width == WIDTH.get(name, width)


def setup(record):
    """Where and how a record was measured, in words: machine, a CPU's threads, precision, layout,
    batch."""
    machine, asked = record["hardware"], record["parameters"]
    threads = asked.get("threads", machine["threads"])
    words = [
        machine["gpu"] or f"{machine['cpu'] or 'a CPU'}, {threads} "
        f"thread{'' if threads == 1 else 's'}",
        asked.get("precision"),
        asked.get("channels_last") and "channels_last",
        asked.get("compile_network") and "compiled",
        asked.get("batch") and f"batch of {asked['batch']}"
    ]
    return ", ".join(filter(None, words))


def by_setup(records):
    """setup in words -> the newest of its records, GPUs first; `records` come oldest first."""
    found = {setup(record): record for record in records}
    return dict(
        sorted(found.items(), key=lambda item: (item[1]["hardware"]["gpu"] is None, item[0])))


def with_methods(records, model, methods):
    """The records of step times on a network at its full width in which all `methods` took turns,
    in their order."""
    return [r for r in records if timed_network(r)[0] == model and at_full_width(r)
            and set(methods) <= {row["name"] for row in r["rows"] if "ratio" in row}]


def of_methods(records, model, methods):
    """The newest record of `with_methods`, or None; `records` come oldest first."""
    return next(reversed(with_methods(records, model, methods)), None)


def over_vanilla(record):
    """side -> its step over half of two vanilla steps, {median, low, high}, of a record of step
    times; {} for None."""
    rows = [row for row in record["rows"] if "ratio" in row] if record else []
    return {row["name"]: {k: 2 * v for k, v in row["ratio"].items()} for row in rows}


def from_csv(file):
    """Steps that were timed outside a record: a list of dicts, `milliseconds` a number and the rest
    text."""
    with open(file, newline="") as lines:
        return [row | {"milliseconds": float(row["milliseconds"])} for row in csv.DictReader(lines)]
