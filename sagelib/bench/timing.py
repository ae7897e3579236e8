"""Fair timing: every side in one run, in turn, medians with their spread.

Numbers from two runs are never compared: machines are shared and warm up. `interleaved` gives each
side one turn per round, so that a ratio is taken within a round. `kernel_profile` says which
kernels a step spends its time in, `packed` how fast several runs train side by side.
"""
from __future__ import annotations

import contextlib
import csv
import ctypes
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .paper_recipe import WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from ..train import Run
    from .schema import Record

    Side = Callable[[], object]
    Event = tuple[str, float, float]  # of a profile: a kernel's name, its start and end in seconds


@dataclass(frozen=True)
class KernelTime:
    """A kernel, copy or fill on a GPU: how often a call launches it, and its seconds in a call."""

    name: str
    launches: float
    seconds: float


@dataclass(frozen=True)
class KernelProfile:
    """Where the time of a call goes on a GPU; all numbers are means over the calls.

    kernels: the most expensive first. kernel_seconds: their sum. busy_seconds: how long at least
    one of them ran; kernels on several streams overlap. wall_seconds: of a call by the clock,
    measured without the profiler, which slows it down.
    """

    kernels: tuple[KernelTime, ...]
    launches: float
    kernel_seconds: float
    busy_seconds: float
    wall_seconds: float

    @property
    def idle_seconds(self) -> float:
        """How long the GPU waits in a call, at least 0."""
        return max(0.0, self.wall_seconds - self.busy_seconds)

    def rows(self, top: int = 20) -> list[dict[str, Any]]:
        """A plain row for each of the `top` most expensive kernels.

        name, launches, milliseconds, and percent of all kernels' time.
        """
        return [{"name": k.name, "launches": k.launches, "milliseconds": 1000 * k.seconds,
                 "percent": 100 * k.seconds / self.kernel_seconds} for k in self.kernels[:top]]


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
        return len(_gpu_events(seen))
    with _Count() as count:
        side()
    return count.operations


def kernel_profile(side: Side, calls: int = 20) -> KernelProfile:
    """The KernelProfile of a function on an NVIDIA GPU, over so many calls after a first one.

    RuntimeError without a GPU, or where the profiler saw none of its kernels.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("a profile of kernels needs an NVIDIA GPU; here is none")
    side()
    wall = _turn(side, calls)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(calls):
            side()
        torch.cuda.synchronize()
    on_gpu = _gpu_events(seen)
    if not on_gpu:
        raise RuntimeError("the profiler saw no kernel: it may lack the right to (a container "
                           "without CAP_SYS_ADMIN), or another profiler has the GPU")
    return profile_of([(e.name, e.time_range.start / 1e6, e.time_range.end / 1e6) for e in on_gpu],
                      calls, wall)


def _gpu_events(seen):
    """The kernels, copies and fills that a profiler saw, without its annotations."""
    return [e for e in seen.events() or () if e.device_type == torch.autograd.DeviceType.CUDA
            and not getattr(e, "is_user_annotation", False)]


def profile_of(events: Iterable[Event], calls: int, wall: float) -> KernelProfile:
    """The KernelProfile of kernels (name, start, end in seconds) that `calls` calls launched.

    wall: seconds of a call by the clock.
    """
    spans: dict[str, list[float]] = {}
    busy, until = 0.0, -math.inf  # until when the GPU is known to have worked
    for name, start, end in sorted(events, key=lambda event: event[1]):
        spans.setdefault(name, []).append(end - start)
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    kernels = [KernelTime(name, len(found) / calls, sum(found) / calls)
               for name, found in spans.items()]
    kernels.sort(key=lambda kernel: -kernel.seconds)
    return KernelProfile(tuple(kernels), sum(k.launches for k in kernels),
                         sum(k.seconds for k in kernels), busy / calls, wall)


def packed(runs: Sequence[Run], steps: int = 100, warm: int = 10) -> float:
    """Images a second that several runs, such as seeds, train on together, a step of each in turn.

    Each run makes `warm` steps and then `steps` that are timed, all on full batches. On a GPU each
    run has its own stream. ValueError where there is no run, or a data set has no full batch.
    """
    full = [len(run.batches.dataset) // run.batches.size for run in runs]
    if not full or min(full) < 1:
        raise ValueError("packed needs at least one run, and a full batch of images for each")
    for run in runs:
        run.begin(0)

    def advance(k):
        for run, many in zip(runs, full, strict=True):
            run.advance(k % many)

    for k in range(warm):
        advance(k)
    start = _now()
    for k in range(steps):
        advance(k)
    return sum(run.batches.size for run in runs) * steps / (_now() - start)


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
    """Where and how a record was measured: machine, precision, layout, batch, and the network's
    classes and weights where they are not 10 and untrained."""
    asked = record["parameters"]
    classes = asked.get("classes") or 10
    words = [machine(record, asked.get("threads")), asked.get("precision"),
             asked.get("channels_last") and "channels_last",
             asked.get("compile_network") and "compiled",
             asked.get("batch") and f"batch of {asked['batch']}",
             f"{classes} classes" if classes != 10 else None,
             asked.get("trained") and f"weights and images of run {asked['trained']}"]
    return ", ".join(filter(None, words))


def machine(record: Record, threads: int | None = None) -> str:
    """The GPU of a record, or its processor and threads, in words; threads: None for its own."""
    hardware = record["hardware"]
    threads = hardware["threads"] if threads is None else threads
    cpu = f"{hardware['cpu'] or 'a CPU'}, {threads} thread{'' if threads == 1 else 's'}"
    return hardware["gpu"] or cpu


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
