"""The speed record: how long a method trains until it reaches an accuracy on CIFAR-10.

Times are training seconds, as the records' curves have them: the evaluations, checkpoints and plots
between two epochs are in no record, and do not count. An entry is the runs of one recipe at one
commit on one machine, one run per seed. It is in the table if it keeps the rules of `reason` and is
faster than the entry before it on the same machine.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import records, summary
from .statistics import LEAST_SEEDS, Spread
from .timing import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .schema import Record

DATASET, TEST_IMAGES = "cifar10", 10_000
METHODS = ("vanilla", "sage")  # each has a table of its own
TARGETS = (95.0, 96.0)         # percent of the test images
LEVEL = 0.01                   # of the test that an entry is faster than the one before it


@dataclass(frozen=True)
class Entry:
    """Runs of one recipe, commit and machine, and how long they train to `target` percent.

    seconds: None where a seed does not reach it. accuracy: after the last epoch. p: of the test
    against the record before it on the machine; None for the first one there. refused: why it is
    no record, or "".
    """

    method: str
    target: float
    machine: str
    seconds: Spread | None
    accuracy: Spread
    p: float | None
    refused: str
    records: tuple[Record, ...]

    @property
    def commit(self) -> str:
        """The first digits of the commit, or "unknown"."""
        commit = self.records[0]["commit"]
        return commit["id"][:7] if commit else "unknown"

    @property
    def recipe(self) -> str:
        """Network, options of the method that were changed, and recipe, in words."""
        first = self.records[0]
        changed = first["parameters"].get("options") or {}
        words = [f"{first['model']['name']}, width {first['model']['width']}",
                 *(f"{name} {value}" for name, value in changed.items()), first["kind"]]
        return "; ".join(words)


def time_to(record: Record, accuracy: float) -> float | None:
    """Training seconds up to the first evaluation with `accuracy` percent or more; None without it.

    The first epoch, in which the network is compiled, counts as the median of the others.
    """
    curve = record["curve"]
    reached = next((k for k, entry in enumerate(curve)
                    if entry.get("test_accuracy", -1) >= accuracy), None)
    if reached is None:
        return None
    return records.steady_epoch(curve) + sum(entry["seconds"] for entry in curve[1:reached + 1])


def table(found: Iterable[Record], method: str, target: float) -> list[Entry]:
    """The entries of a method for a target, in the order in which they were finished.

    found: training records. Runs of which no seed reaches the target are no entries. Those with
    `refused` are no records; each of the others was one on its machine, until a later one.
    """
    entries: list[Entry] = []
    best: dict[str, Entry] = {}  # machine -> the record there
    for group in _groups(r for r in found if _asked(r, method)):
        times = _times(group, target)
        if not times:
            continue
        where = machine(group[0])
        refused, p, before = reason(group, target), None, best.get(where)
        if not refused and before is not None:
            p = faster(group, before.records, target)
            if p >= LEVEL:
                refused = f"not faster than the record before it: p is {p:.2g}"
        entry = Entry(method, target, where,
                      summary.spread(times) if len(times) == len(group) else None,
                      summary.spread(r["final"]["accuracy"] for r in group), p, refused,
                      tuple(group))
        entries.append(entry)
        if not refused:
            best[where] = entry
    return entries


def _times(group, target):
    """The times of the runs that reach the target."""
    return [time for r in group if (time := time_to(r, target)) is not None]


def _asked(record, method):
    return (record["dataset"]["name"] == DATASET and record["dataset"]["test"] == TEST_IMAGES
            and record["method"]["name"] == method)


def _groups(found):
    """Lists of records that differ in their seed alone, by seed, the first to be finished first."""
    groups: dict[str, list[Record]] = {}
    for record in found:
        same = [machine(record), record["commit"], *(record[k] for k in (
            "dataset", "model", "method", "recipe"))]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    by_seed = [sorted(group, key=lambda r: r["seed"]) for group in groups.values()]
    return sorted(by_seed, key=lambda group: max(r["finished"] for r in group))


def reason(group: Sequence[Record], target: float) -> str:
    """Why runs of one recipe cannot be a record, whatever their times; "" if they can.

    At least three seeds, each of which reaches the target, with a mean accuracy at the end that
    does too; a known commit, without changed files; one run at a time on the machine.
    """
    seeds = len({r["seed"] for r in group})
    if seeds < LEAST_SEEDS:
        return f"{seeds} of at least {LEAST_SEEDS} seeds"
    late = [str(r["seed"]) for r in group if time_to(r, target) is None]
    if late:
        return f"seed {' and '.join(late)} never reaches {target:g} %"
    mean = summary.spread(r["final"]["accuracy"] for r in group).mean
    if mean < target:
        return f"mean accuracy at the end: {mean:.2f} %"
    if any(r["commit"] is None or r["commit"]["dirty"] for r in group):
        return "the commit is unknown, or files differed from it"
    if any(r["seconds"].get("together", 1) > 1 for r in group):
        return "seeds were trained side by side, and share their seconds"
    return ""


def faster(ours: Sequence[Record], theirs: Sequence[Record], target: float) -> float:
    """One-sided p-value that our runs reach the target no sooner than theirs (Welch's t-test).

    All runs must reach it. 1 where the times of a side do not vary, which says nothing of the next
    seed.
    """
    try:
        from scipy.stats import ttest_ind
    except ImportError as error:
        raise ImportError("the test that an entry is faster needs scipy: pip install "
                          "'sagelib[book]'") from error
    times = [_times(side, target) for side in (ours, theirs)]
    if any(max(side) - min(side) < 1e-9 for side in times):
        return 1.0
    return float(ttest_ind(*times, equal_var=False, alternative="less").pvalue)
