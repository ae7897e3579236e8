"""For the pages on all results: records by recipe and by plan, their hours, links to chapters."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import plans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .plans import RunSpec
    from .schema import Record

    ByLabel = dict[str, list[Record]]  # a row's label -> its records, by seed


def machine_hours(records: Iterable[Record]) -> float:
    """Hours of training that records took; seeds trained side by side share them."""
    return sum(r["seconds"]["training"] / (r["seconds"].get("together") or 1)
               for r in records) / 3600


def chapter_link(notebook: str) -> str:
    """A Markdown link to a chapter from another, by its title: "03_mask" -> "[Mask](…)"."""
    title = re.sub(r"^(\d\d|appendix)_", "", notebook).replace("_", " ").capitalize()
    return f"[{title}]({notebook}.ipynb)"


def recorded(runs: Iterable[RunSpec], records: Iterable[Record]) -> list[tuple[RunSpec, Record]]:
    """The training runs that have a record, each with the first that finished."""
    known: dict[tuple[str, ...], list[Record]] = {}
    for record in sorted(records, key=lambda r: r.get("finished", "")):
        place = record["dataset"]["name"], record["model"]["name"], record["method"]["name"]
        known.setdefault((*place, str(record["seed"])), []).append(record)

    def first(run):
        place = (str(run.parameters[k]) for k in (*plans.CATALOGUES, "seed"))
        return next(filter(run.matches, known.get((*place,), [])), None)

    return [(run, record) for run in runs if (record := first(run)) is not None]


def of_plan(file: str | Path,
            records: Sequence[Record]) -> dict[tuple[str, str], ByLabel]:
    """What was measured of a plan: (size, data set) -> label -> records by seed.

    Labels are those of `labels`.
    """
    label, found = labels(file), {}
    for size, runs in plans.by_size(file).items():
        for run, record in recorded(runs, records):
            place = size, run.parameters["dataset"]
            found.setdefault(place, {}).setdefault(label(run), []).append(record)
    return found


def count(n: int, noun: str) -> str:
    """A number of things in words: 1 run, 2 runs."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def labels(file: str | Path) -> Callable[[RunSpec], str]:
    """A function that gives each run of a plan its label.

    It is that of the plan's row, or else the method and `plans.variant`.
    """
    rows = {(row["method"], str(row.get("options") or {})): label
            for (label, _), row in plans.table_rows(file).items()}

    def label(run):
        p = run.parameters
        row = rows.get((p["method"], str(p.get("options") or {})))
        return row or ", ".join(filter(None, (p["method"], plans.variant(p))))

    return label
