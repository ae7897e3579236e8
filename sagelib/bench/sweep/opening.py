"""What a plan costs and what to expect of it: the comment that opens each plan of the book.

`ci/book --save` writes it anew. A dry run prints the expected result.
"""
from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

from .. import paths, plans, records, scorecard, summary, timing
from . import estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ..plans import RunSpec
    from ..schema import Record

PAPER = "arXiv 2211.00113"
CORE = "one core of AMD EPYC"
# heading -> name in `estimate.machines`
MACHINES = {CORE: "1 core of AMD EPYC", "NVIDIA H200": "NVIDIA H200, fp32 (TF32 convolutions)",
            "Tesla T4": "a Tesla T4"}
BF16 = {"NVIDIA H200": "NVIDIA H200, bf16, compiled"}  # for runs in that precision, likewise
QUANTITIES = {"accuracy": "test accuracy after the last epoch, percent",
              "few-shot accuracy": "accuracy on 5-way 5-shot episodes, percent",
              "hours": "hours of training, and the step over vanilla's",
              "mean": "accuracy on perturbed test images, percent"}
MEASURED = scorecard.quantities_by_name()
UNITS = {"years": 24 * 365.25, "days": 24, "h": 1, "min": 1 / 60, "s": 1 / 3600}


def renewed(file: Path, text: str, machines: Sequence[estimate.Machine] | None = None) -> str:
    """A plan's text with a new `opening`: it replaces all comment lines at the top."""
    return opening(file, machines=machines) + re.sub(r"\A(?:#.*\n)*", "", text)


def opening(file: Path, results: str | Path = records.RESULTS,
            machines: Sequence[estimate.Machine] | None = None) -> str:
    """The comment that opens a plan: its title, its commands, the expected time and result.

    machines: those of `estimate.machines`, by default by the records under `results`.
    """
    title, _ = plans.read(file, "paper")
    command = f"    python -m sagelib.bench.sweep book/plans/{file.name}"
    commands = [f"{command} --size {size} --root DATA" for size in ("laptop", "paper")]
    times = cost(file, estimate.machines(results) if machines is None else machines)
    lines = [*textwrap.wrap(f"{title} ({PAPER})", 90), "", *commands, "", *times, "",
             *result(file, results), "",
             "`ci/book --save` writes this comment; sizes.yml says how to read it."]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def cost(file: Path, machines: Sequence[estimate.Machine]) -> list[str]:
    """Lines: how long all runs of a plan take at each size, one after another, on `MACHINES`."""
    by_size = plans.by_size(file)
    if not any("method" in run.parameters for run in by_size["paper"]):
        numbers = ", ".join(f"{len(runs)} at size {size}" for size, runs in by_size.items())
        said = (f"Expected time: about {duration(estimate.BENCHMARK)} a run, on an NVIDIA H200 or "
                f"a Tesla T4 at the sizes paper, short and medium, on {CORE} at laptop and tiny. "
                f"Runs: {numbers}.")
        return textwrap.wrap(said, 90)
    by_name = {m.name: m for m in machines}
    known = {head: by_name[name] for head, name in MACHINES.items() if name in by_name}
    in_bf16 = {head: by_name[name] for head, name in BF16.items() if name in by_name}
    rows = [["size", "runs", *known]]
    for size, runs in by_size.items():
        timed = known
        if any(run.parameters.get("precision") == "bf16" for run in runs):
            timed = in_bf16
        elif any(run.parameters.get("width") for run in runs):
            timed = {head: m for head, m in known.items() if head == CORE}
        hours = {head: sum(estimate.hours(run, m) for run in runs) for head, m in timed.items()}
        shown = [duration(hours[head]) if head in hours else "-" for head in known]
        rows.append([size, str(len(runs)), *shown])
    sources = ", ".join(m.source for m in known.values())
    return ["Expected time of all runs, one after another:", "", *aligned(rows), "",
            *textwrap.wrap(f"Speeds from {sources}.", 90, break_on_hyphens=False)]


def result(file: str | Path, results: str | Path = records.RESULTS) -> list[str]:
    """Lines: the numbers of the paper that a plan's `expect` names, beside ours; [] without it."""
    expect = plans.expected(file)
    if not expect:
        return []
    runs = plans.by_size(file)
    first = next(run for found in runs.values() for run in found)
    cells = expected_cells(file, expect, first)
    published = records.of_notebook(first.notebook, results)
    asked = [(cell, recipe) for recipe in dict.fromkeys(map(_recipe, runs["paper"]))
             for cell in cells]
    ours = {size: [measured(runs[size], *one, published) for one in asked] for size in runs}
    shown = [size for size, found in ours.items() if any(found)] or ["laptop"]
    paper = ["the paper"] if "table" in expect else []
    rows = [["", *paper, *(f"ours, {size}{_instead(runs[size], cells[0])}" for size in shown)]]
    for k, (cell, recipe) in enumerate(asked):
        said = [_said(cell, cells[0])] if paper else []
        label = f"{cell.label}, {recipe}" if recipe else cell.label
        rows.append([label, *said, *(ours[size][k] or "not run" for size in shown)])
    where = f"Table {cells[0].table}: {cells[0].row}" if paper else "not in the paper"
    return [f"Expected {QUANTITIES[cells[0].quantity]} ({where}):", "", *aligned(rows)]


def expected_cells(file: str | Path, expect: Mapping[str, Any],
                   run: RunSpec) -> list[scorecard.TableCell]:
    """The cells of the paper's tables that `expect` names.

    Without a table, its labels are methods with the data set and the network of `run`.
    """
    if "table" not in expect:
        place = run.parameters["dataset"], run.parameters["model"]
        return [scorecard.TableCell(0, "", m, 0.0, *place, m, {}, "accuracy")
                for m in expect["labels"]]
    table = [c for c in scorecard.with_means(scorecard.printed()) if c.table == expect["table"]]
    row = {c.label: c for c in table if c.row == expect["row"]}
    unknown = [label for label in expect["labels"] if label not in row]
    if unknown:
        rows = dict.fromkeys(c.row for c in table)
        known = f"labels: {', '.join(row)}" if row else f"rows: {'; '.join(rows)}"
        raise ValueError(f"{file}: Table {expect['table']} has no row {expect['row']!r} with the "
                         f"label {unknown[0]!r}; its {known}")
    return [row[label] for label in expect["labels"]]


def _recipe(run: RunSpec) -> str:
    """The name of the set-up or of the schedule that a run asks for; "" where it names none."""
    return run.parameters.get("setup") or run.parameters.get("schedule", "")


def measured(runs: Iterable[RunSpec], cell: scorecard.TableCell, recipe: str,
             published: Sequence[Record]) -> str:
    """What records say of a cell, by those of a plan's runs that measure it; "" without any.

    recipe: the set-up or schedule that the runs ask for, "" where they name none. Runs of another
    data set count where the plan has none of the cell's own at this size.
    """
    runs = [run for run in runs
            if run.parameters["model"] == cell.model and _recipe(run) == recipe]
    if cell.table == 6:
        steps = [timing.over_vanilla(r) for run in runs for r in published if run.matches(r)]
        found = [step[cell.method]["median"] for step in steps if cell.method in step]
        return f"{found[-1]:.2f} × vanilla" if found else ""
    asked = cell.method, cell.options
    runs = [run for run in runs
            if (run.parameters["method"], run.parameters.get("options") or {}) == asked]
    runs = [run for run in runs if run.parameters["dataset"] == cell.dataset] or runs
    value = MEASURED[cell.quantity].value
    found = {run.parameters["seed"]: value(record) for run in runs for record in published
             if run.matches(record) and value(record) is not None}
    return str(summary.spread(found.values())) if found else ""


def _instead(runs: Iterable[RunSpec], cell: scorecard.TableCell) -> str:
    """The data set that runs have instead of a cell's, after a comma; "" where it is the same."""
    found = {run.parameters.get("dataset", cell.dataset) for run in runs}
    return "" if cell.dataset in found else f", {', '.join(sorted(found))}"


def _said(cell: scorecard.TableCell, vanilla: scorecard.TableCell) -> str:
    number = f"{round(cell.reported, 2):g}"  # a mean over three perturbations has more digits
    times = f"{cell.reported / vanilla.reported:.2f}"
    return f"{number} h, {times} × vanilla" if cell.quantity == "hours" else number


def duration(hours: float) -> str:
    """Hours in words, with two digits: 36.2 -> "36 h"; days and years from two on."""
    least = {"years": 2, "days": 2}
    unit = next((u for u, size in UNITS.items() if hours >= size * least.get(u, 1)), "s")
    return f"{float(f'{hours / UNITS[unit]:.2g}'):g} {unit}"


def aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows of a table as indented lines, their columns at least two spaces apart."""
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(f"{v!s:<{w}}" for v, w in zip(row, widths, strict=True)) for row in rows]
    return [f"    {line}".rstrip() for line in lines]


def book() -> list[Path]:
    """The files of the book's plans."""
    return sorted(file for file in paths.PLANS.glob("*.yml") if file.stem != "sizes")
