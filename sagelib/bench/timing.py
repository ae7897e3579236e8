"""Fair timing: every side in one run, in turn, medians with their spread.

Numbers from two runs are never compared: machines are shared and warm up. `interleaved` gives each
side one turn per round, so that a ratio is taken within a round.
"""
from __future__ import annotations

import contextlib
import csv
import ctypes
import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .paper_recipe import WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .schema import Record

    Side = Callable[[], object]


def interleaved(sides: Mapping[str, Side], rounds: int = 9, warm: int = 1,
                least: float = 0.05) -> dict[str, list[float]]:
    """Seconds a call of each side takes, name -> a list with one number a round.

    Each is called `warm` times first; a turn repeats a side until it lasted `least` seconds, and
    counts the mean. On a GPU the clock waits for it.
    """
    if rounds < 1:
        raise ValueError(f"timing needs at least one round, not {rounds}")
    for _ in range(warm):
        for side in sides.values():
            side()
    calls = {name: max(1, math.ceil(least / max(_turn(side, 1), 1e-6)))
             for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(_turn(side, calls[name]))
    return seconds


def _turn(side, calls):
    start = _now()
    for _ in range(calls):
        side()
    return (_now() - start) / calls


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of a list of numbers."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(seconds: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """How many times as long the first took, round by round: median, least, greatest."""
    return spread([a / b for a, b in zip(seconds, others, strict=True)])


def peak_memory(side: Side, device: torch.device | str = "cpu") -> int | None:
    """Bytes that a call needs at its peak beyond what was there before; None if unknown.

    On a GPU it is memory of tensors, on Linux that of the process, with what the allocator keeps.
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


def launches(side: Side, device: torch.device | str = "cpu") -> int:
    """Kernels, copies and fills of a call on a GPU; elsewhere tensor operations, without views."""
    side()
    if torch.device(device).type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            side()
            torch.cuda.synchronize()
        return sum(e.device_type == torch.autograd.DeviceType.CUDA for e in seen.events() or ())
    with _Count() as count:
        side()
    return count.operations


def operations(side: Side) -> tuple[int, int]:
    """Multiplications and additions of a call's convolutions and matrix products, both ways.

    The first number is forwards, the second backwards. PyTorch counts them; element-wise work is
    not in it.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()  # pyrefly: ignore[bad-assignment]  (has all that is used)
    with counter:
        side()
    total, kinds = counter.get_total_flops(), counter.get_flop_counts()["Global"]
    products = [n for kind, n in kinds.items() if str(kind) in ("aten.convolution", "aten.addmm")]
    forwards = sum(products)
    return forwards, total - forwards


class _Whole(contextlib.nullcontext):
    # only the total: the counter's book-keeping for single modules fails under autograd.grad
    parents = ("Global",)


class _Count(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def _now():
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _give_back():
    """What the C library keeps of freed memory, where it can be told to."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return 1024 * int(values[key].split()[0])


def timed_network(record: Record) -> tuple[str | None, int | None]:
    """(name, width) of the network that a record of step times really timed, each None if unknown.

    A record with the parameter `network` says what was built. Older records have only the `width`
    that was asked for: the experiment gave it to PreActResNet18 and built every other network at
    its own width.
    """
    asked = record["parameters"]
    if "network" in asked:
        return asked["network"]["name"], asked["network"].get("width")
    name, width = asked.get("model"), asked.get("width")
    own = name != "preactresnet18" or width == 0  # 0 asks for the network's own
    return name, WIDTH.get(name) if own else width


def at_full_width(record: Record) -> bool:
    """Whether a record of step times timed its network at the paper's width.

    True for a network not in the paper, False where the record names none.
    """
    name, width = timed_network(record)
    return bool(name) and width == WIDTH.get(name, width)


def setup(record: Record) -> str:
    """Where and how a record was measured: machine, a CPU's threads, precision, layout, batch."""
    machine, asked = record["hardware"], record["parameters"]
    threads = asked.get("threads", machine["threads"])
    cpu = f"{machine['cpu'] or 'a CPU'}, {threads} thread{'' if threads == 1 else 's'}"
    words = [machine["gpu"] or cpu, asked.get("precision"),
             asked.get("channels_last") and "channels_last",
             asked.get("compile_network") and "compiled",
             asked.get("batch") and f"batch of {asked['batch']}"]
    return ", ".join(filter(None, words))


def by_setup(records: Sequence[Record]) -> dict[str, Record]:
    """setup in words -> the newest of its records, GPUs first; `records` come oldest first."""
    found = {setup(record): record for record in records}
    return {words: found[words]
            for words in sorted(found, key=lambda w: (found[w]["hardware"]["gpu"] is None, w))}


def with_methods(records: Sequence[Record], model: str, methods: Collection[str]) -> list[Record]:
    """The records of step times on a network at full width with all `methods`, in their order."""
    return [r for r in records if timed_network(r)[0] == model and at_full_width(r)
            and set(methods) <= over_vanilla(r).keys()]


def of_methods(records: Sequence[Record], model: str, methods: Collection[str]) -> Record | None:
    """The newest record of `with_methods`, or None; `records` come oldest first."""
    return next(reversed(with_methods(records, model, methods)), None)


def over_vanilla(record: Record | None) -> dict[str, dict[str, float]]:
    """side -> {median, low, high} of its step over half of two vanilla steps; {} for None."""
    rows = [row for row in record["rows"] if "ratio" in row] if record else []
    return {row["name"]: {k: 2 * v for k, v in row["ratio"].items()} for row in rows}


def from_csv(file: str | Path) -> list[dict[str, Any]]:
    """Steps that were timed outside a record: `milliseconds` is a number, the rest is text."""
    with open(file, newline="") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    return [row | {"milliseconds": float(row["milliseconds"])} for row in rows]
