"""What a sweep says of its cells while it runs."""
from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

from .estimate import BENCHMARK, hours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ..plans import RunSpec


class SweepProgress:
    """What a sweep says while it runs: cells done, running and failed, and the time left."""

    def __init__(self, todo: Iterable[RunSpec], say: Callable[[str], object]) -> None:
        self.todo, self.say, self.begun = {c.name: c for c in todo}, say, time.time()
        self.state, self.since, self.took = dict.fromkeys(self.todo, "waiting"), {}, {}

    def started(self, cell: RunSpec) -> None:
        self.since[cell.name] = time.time()
        self._to(cell, "running", "started")

    def again(self, cell: RunSpec) -> None:
        self._to(cell, "waiting", "was killed; it is tried again:")

    def done(self, cell: RunSpec) -> None:
        self._to(cell, "done", "done")

    def failed(self, cell: RunSpec, why: str, folder: str | Path) -> None:
        self._to(cell, "failed", f"failed ({why}; see {folder})")

    def _to(self, cell, state, word):
        self.state[cell.name] = state
        if state == "done":
            self.took[cell.name] = time.time() - self.since.get(cell.name, self.begun)
        count = collections.Counter(self.state.values())
        self.say(f"[{count['done']}/{len(self.todo)} done, {count['running']} running, "
                 f"{count['failed']} failed{self.left()}] {word} {cell.name}")

    def left(self) -> str:
        """The time left, from what finished cells took; "" before the first has finished.

        A cell is expected to take its estimate of `hours`, at the pace of the finished cells of its
        method, or of all where none of them has finished. What runs now counts for what is left of
        it, and the waiting cells are shared out among as many as run at a time.
        """
        if not self.took:
            return ""
        pace = sum(self.took.values()) / sum(self._hours(name) for name in self.took)
        now = time.time()
        waiting = [self._seconds(name, pace)
                   for name, state in self.state.items() if state == "waiting"]
        running = [max(0, self._seconds(name, pace) - (now - self.since[name]))
                   for name, state in self.state.items() if state == "running"]
        seconds = (sum(waiting) + sum(running)) / max(1, len(running))
        hours, minutes = f"{seconds / 3600:.1f} h", f"{seconds / 60:.0f} min"
        return f", {hours if seconds > 5400 else minutes} left"

    def _seconds(self, name, pace):
        """What a cell is expected to take."""
        cell = self.todo[name]
        alike = [took / self._hours(other) for other, took in self.took.items()
                 if self.todo[other].parameters.get("method") == cell.parameters.get("method")]
        return self._hours(name) * (sum(alike) / len(alike) if alike else pace)

    def _hours(self, name):
        """The estimate for a cell; where a method or network is broken, its cell says so and the
        sweep goes on."""
        try:
            return hours(self.todo[name])
        except Exception:
            return BENCHMARK
