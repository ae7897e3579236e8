"""The paper's table cells and claims beside our records: reported | measured | verdict.

A cell is what the paper printed in one place of a table, and which runs would measure it. A claim
says that some labels of a table are better than others; the same rule is asked of the printed
numbers and of our records. A claim for which the paper prints no numbers can name the rows of a
plan of ours instead. Only the paper's recipe with three seeds or more can support or
contradict anything.
"""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import plans, quantities, records, report, timing
from .statistics import LEAST_SEEDS, WORDS, Family, Quantity, difference, to_reported
from .summary import kind_of, runs_by_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from .schema import Record, Row

    Place = tuple[int, str, str]  # of a cell: table, row, label
    Claim = Mapping[str, Any]  # see `pairs`

ROBUST = {4: "cifar10", 5: "cifar100"}
DECIDED = {**WORDS, 0: "not distinguishable"}  # of a sign


@dataclass(frozen=True)
class TableCell:
    """One number of one table, with its row and its label there, and what would measure it.

    That is: data set, network, method with options, and the name of the quantity.
    """

    table: int
    row: str
    label: str
    reported: float
    dataset: str
    model: str
    method: str
    options: Mapping[str, Any] = field(hash=False)
    quantity: str

    @property
    def place(self) -> Place:
        """Table, row and label."""
        return self.table, self.row, self.label


def cells(reported: Mapping[int, Iterable[Row]]) -> list[TableCell]:
    """Every cell of the paper's tables, in their order.

    reported: table number -> its rows, as `records.reported` reads them. The rows of Tables 3 and 7
    are runs of their plans. The printed ranks of Tables 4 and 5 are not measured.
    """
    return [cell for number, rows in reported.items() for row in rows
            for cell in _of_row(number, dict(row))]


def _of_row(number, row):
    if number in (1, 2, 6):
        dataset, model = row.pop("dataset"), row.pop("model")
        quantity = {1: "accuracy", 2: "few-shot accuracy", 6: "hours"}[number]
        return [TableCell(number, f"{dataset}, {model}", m, v, dataset, model, m, {}, quantity)
                for m, v in row.items()]
    if number in ROBUST:
        kind, dataset, model = row.pop("perturbation"), ROBUST[number], "preactresnet18"
        return [TableCell(number, f"{dataset}, {kind}", m, v, dataset, model, m, {}, kind)
                for m, v in row.items() if kind != "rank"]
    part, setting, found = row.pop("part"), row.pop("setting"), []
    label = f"{part} {setting}" if part in ("eta", "u") else setting
    for dataset, v in row.items():
        run = _planned(number)[label, dataset]
        found.append(TableCell(number, f"{dataset}, {part}", label, v, dataset, run["model"],
                               run["method"], run.get("options", {}), "accuracy"))
    return found


@functools.cache
def _planned(number):
    return plans.table_rows(plans.PLANS / f"table_{number}.yml")


@dataclass(frozen=True)
class Book:
    """All that the scorecard is made from."""

    cells: Sequence[TableCell]  # of the paper's tables
    found: Mapping[Place, Mapping[str, Sequence[Record]]]  # what was measured, see `runs`
    quantities: Mapping[str, Quantity]
    # (network, method) -> least, median, greatest multiple of vanilla's step
    clock: Mapping[tuple[str, str], Sequence[float]]
    trained: Sequence[Record] = ()  # for the claims about a plan

    @functools.cached_property
    def wide(self) -> list[TableCell]:
        """The cells with the rows of means."""
        return with_means(self.cells)


def book(results: str | Path = records.RESULTS, convention: str = "pixels, clamped") -> Book:
    """The Book of the records under `results`; `convention`: of the budgets in Tables 4 and 5."""
    here, numbers = printed(), quantities_by_name(convention)
    trained = records.every(results)
    every = [*trained, *records.every(results, "few_shot")]
    timed, table_6 = records.timings(results, "step_time"), [c for c in here if c.table == 6]
    asked = [c.method for c in table_6]
    clock = {(model, name): [r["low"], r["median"], r["high"]]
             for model in sorted({c.model for c in table_6})
             for name, r in timing.over_vanilla(timing.of_methods(timed, model, asked)).items()}
    return Book(here, runs(with_means(here), every, numbers), numbers, clock, trained)


@functools.cache
def printed() -> tuple[TableCell, ...]:
    """The `cells` of the paper's seven tables as the repository holds them."""
    return (*cells({k: records.reported(k) for k in range(1, 8)}),)


def quantities_by_name(convention: str = "pixels, clamped") -> dict[str, Quantity]:
    """The quantity of each name in a TableCell, but for "hours"; `convention` as for `book`."""
    perturbed = {n: quantities.perturbed(n, convention)
                 for n in (*quantities.PERTURBATIONS, "mean")}
    return {"accuracy": quantities.ACCURACY, "few-shot accuracy": quantities.few_shot(),
            **perturbed}


def runs(cells: Sequence[TableCell], records: Sequence[Record],
         quantities: Mapping[str, Quantity]) -> dict[Place, dict[str, list[Record]]]:
    """What was measured for the cells: a cell's place -> kind of the recipe -> records by seed.

    The paper's recipe comes first, then the one with most records in the row.
    """
    found = {}
    for table, row in dict.fromkeys((c.table, c.row) for c in cells):
        here = [c for c in cells if (c.table, c.row) == (table, row)]
        quantity = quantities.get(here[0].quantity)
        able = [r for r in records if quantity and quantity.value(r) is not None]
        asked = {c.label: (c.method, c.options) for c in here}
        for kind, by_label in runs_by_row(able, here[0].dataset, here[0].model, asked).items():
            for label, rs in by_label.items():
                found.setdefault((table, row, label), {})[kind] = rs
    return found


def recipe_word(kind: str | None) -> str:
    """What is to be said of numbers of a recipe that is not the paper's; "" for the paper's."""
    words = {"paper": "", "few_shot": "another recipe", "clock": "another machine", None: "not run"}
    name = kind and kind.split(":")[0]
    return words.get(name, f"{name} recipe")


def verdicts(book: Book) -> dict[Place, str]:
    """What our runs say of each reported number: a cell's place -> a word.

    "not run"; "another machine" for Table 6; "another recipe" for few-shot, whose recipe the paper
    does not give; "shortened recipe", "longer recipe" or "changed recipe", whose numbers do not
    compare; "fewer than 3 seeds"; else "higher" or "lower" where the difference to the paper's mean
    is decided, all cells of a table together, and "not distinguishable" where it is not.
    """
    words, families = {}, {}
    for cell in book.cells:
        kind, ran = next(iter(book.found.get(cell.place, {}).items()), (None, []))
        if cell.table == 6:
            kind = "clock" if (cell.model, cell.method) in book.clock else None
        words[cell.place] = recipe_word(kind) or f"fewer than {LEAST_SEEDS} seeds"
        if kind == "paper" and len(ran) >= LEAST_SEEDS:
            gap = to_reported(ran, cell.reported, book.quantities[cell.quantity])
            families.setdefault(cell.table, {})[cell.place] = gap
    for table, gaps in families.items():
        for place, sign in Family(f"the measured cells of Table {table}", gaps).signs.items():
            words[place] = DECIDED[sign]
    return words


def progress(book: Book) -> dict[str, int]:
    """How far the reproduction is: counts of cells, by what has been run.

    `all`; `reproduced`: the paper's recipe with three seeds or more; `begun`: the paper's recipe
    with fewer; `other`: only another recipe or machine; `none`: nothing.
    """
    parts = {**dict.fromkeys(DECIDED.values(), "reproduced"), "not run": "none",
             f"fewer than {LEAST_SEEDS} seeds": "begun"}
    count = {"all": len(book.cells), "reproduced": 0, "begun": 0, "other": 0, "none": 0}
    for word in verdicts(book).values():
        count[parts.get(word, "other")] += 1
    return count


def progress_text(book: Book) -> str:
    """`progress` in two sentences, for the front page and the README."""
    n = progress(book)
    begun = f", {n['begun']} more with fewer seeds" if n["begun"] else ""
    return (f"Of the {n['all']} numbers in the paper's tables, this book has reproduced "
            f"{n['reproduced']} with the paper's own recipe and {LEAST_SEEDS} seeds or more{begun}."
            f" For {n['other']} numbers there are runs of another recipe or machine, such as a "
            "shortened training, which neither confirm nor refute the paper; "
            f"{n['none']} have not been run yet.")


def with_means(cells: Iterable[TableCell]) -> list[TableCell]:
    """The cells, and for Tables 4 and 5 a row of means over the three perturbations.

    The paper's text goes by these means.
    """
    found = [*cells]
    for number, dataset in ROBUST.items():
        table = [c for c in found if c.table == number]
        for label in dict.fromkeys(c.label for c in table):
            three = [c for c in table if c.label == label]
            mean = sum(c.reported for c in three) / len(three)
            found.append(replace(three[0], row=f"{dataset}, mean", reported=mean, quantity="mean"))
    return found


def pairs(claim: Claim, cells: Iterable[TableCell]) -> list[tuple[TableCell, TableCell]]:
    """The (better, worse) cells that a claim is about, which are in one row.

    claim: a dict with `table`, `rows` (a pattern of the rows it speaks of), `better` and `than`,
    lists of labels, or "others" for all the rest of the row. `margin` makes it a claim of "not much
    worse", or below 0 of "much better": so many percent of accuracy, or in Table 6, where less is
    better, so large a part of the other's hours.
    """
    def is_worse(cell):
        if claim["than"] == "others":
            return cell.label not in claim["better"]
        return cell.label in claim["than"]

    here = [c for c in cells if c.table == claim["table"] and re.search(claim["rows"], c.row)]
    found = [(a, b) for a in here if a.label in claim["better"]
             for b in here if b.row == a.row and is_worse(b)]
    if not found:
        raise ValueError(f"the claim {claim['says']!r} is about no cell of table {claim['table']}")
    return found


def as_printed(claim: Claim, cells: Iterable[TableCell]) -> tuple[int, int]:
    """How many of the claim's pairs the printed numbers bear out, and how many there are."""
    found, margin = pairs(claim, cells), claim.get("margin", 0)
    if claim["table"] == 6:
        return sum(a.reported < b.reported * (1 + margin) for a, b in found), len(found)
    return sum(a.reported - b.reported > -margin for a, b in found), len(found)


def planned_pairs(claim: Claim) -> list[tuple[str, str, str]]:
    """(data set, better, worse) of a claim about the rows of a plan.

    claim: a dict with `plan`, the name of one of the book's, `rows` (a pattern of its data sets),
    `better` and `than`, lists of labels as `report.labels` gives them, and perhaps `margin`.
    ValueError for a label that the plan lacks.
    """
    file = plans.PLANS / f"{claim['plan']}.yml"
    label, by_data = report.labels(file), {}
    for run in plans.read(file, "paper")[1]:
        by_data.setdefault(run.parameters["dataset"], {})[label(run)] = None
    found = []
    for data, labels in by_data.items():
        unknown = [label for label in (*claim["better"], *claim["than"]) if label not in labels]
        if unknown:
            raise ValueError(f"the claim {claim['says']!r}: the plan {claim['plan']} has no row "
                             f"{unknown[0]!r}; its rows: {'; '.join(labels)}")
        if re.search(claim["rows"], data):
            found += [(data, a, b) for a in claim["better"] for b in claim["than"]]
    return found


def as_measured(claim: Claim, book: Book) -> dict[str, Any]:
    """What our records say of a claim: counts of its pairs, and the `kinds` of recipe run.

    `of`: the pairs it has; `run`: on both sides; `leaning`: with a mean difference in its favour;
    `for` and `against`: decided. The pairs of a claim are decided together, over their shared seeds
    (`statistics.Family`). If there are records of the paper's recipe, others do not count. In Table
    6 a pair is decided where the ranges of the times are apart.
    """
    asked = planned_pairs(claim) if "plan" in claim else pairs(claim, book.wide)
    if claim.get("table") == 6:
        kinds, found = ["clock"], [_apart(pair, claim, book) for pair in asked]
        signs = [sign for sign in found if sign]
    else:
        if "plan" in claim:
            found = _planned_differences(asked, claim, book.trained)
        else:
            found = [_difference(pair, claim, book) for pair in asked]
        gaps = [gap for gap in found if gap]
        if any(kind == "paper" for kind, _ in gaps):
            gaps = [(kind, d) for kind, d in gaps if kind == "paper"]
        kinds = sorted({kind for kind, _ in gaps})
        decided = Family(f"the claim {claim['says']!r}", dict(enumerate(d for _, d in gaps))).signs
        signs = [(d.mean > 0, decided[k]) for k, (_, d) in enumerate(gaps)]
    return {"of": len(asked), "run": len(signs), "leaning": sum(leans for leans, _ in signs),
            "for": sum(s == 1 for _, s in signs), "against": sum(s == -1 for _, s in signs),
            "kinds": kinds if signs else []}


def _apart(pair, claim, book):
    """(leans, sign) of "better takes less than worse"; None if one is missing.

    The sign is 1 or -1 where the ranges of their times are apart.
    """
    ours, theirs = (book.clock.get((cell.model, cell.method)) for cell in pair)
    if not ours or not theirs:
        return None
    theirs = [(1 + claim.get("margin", 0)) * t for t in theirs]
    return ours[1] < theirs[1], (ours[2] < theirs[0]) - (ours[0] > theirs[2])


def _difference(pair, claim, book):
    """(kind, better - worse over their shared seeds, margin added); None if it was not run."""
    ours, theirs = (book.found.get(cell.place, {}) for cell in pair)
    for kind in [k for k in ours if k in theirs]:
        gap = difference(ours[kind], theirs[kind], book.quantities[pair[0].quantity])
        if gap:
            return kind, replace(gap, mean=gap.mean + claim.get("margin", 0))
    return None


def _planned_differences(asked, claim, trained):
    """As `_difference`, for each pair of `planned_pairs`.

    The plan's size says which runs go together, the largest first; the size "paper" is the paper's
    recipe, but for what a row changes on purpose, such as the learning rate.
    """
    measured = report.of_plan(plans.PLANS / f"{claim['plan']}.yml", trained)
    found = []
    for data, one, other in asked:
        gaps = [(_kind(size, by_label), gap) for (size, where), by_label in measured.items()
                if where == data and (gap := difference(
                    by_label.get(one, []), by_label.get(other, []), quantities.ACCURACY))]
        found.append(next(((kind, replace(gap, mean=gap.mean + claim.get("margin", 0)))
                           for kind, gap in gaps), None))
    return found


def _kind(size, by_label):
    """The kind of the runs of a plan at a size: that of the row which differs least."""
    kinds = {kind_of(r) for found in by_label.values() for r in found}
    return "paper" if size == "paper" else min(kinds, key=len)


def word(count: Mapping[str, Any], share: float = 1) -> str:
    """The verdict on a claim from what `as_measured` counted; `share` of the pairs are enough.

    Only the paper's recipe can say "supported", "contradicted", "mixed" or "undecided"; for any
    other the word names the recipe.
    """
    if not count["run"]:
        return "not run"
    if count["kinds"] != ["paper"]:
        return ", ".join(dict.fromkeys(recipe_word(kind) for kind in count["kinds"]))
    if count["against"] > (1 - share) * count["of"]:
        return "contradicted" if not count["for"] else "mixed"
    return "supported" if count["for"] >= share * count["of"] else "undecided"


def printed_word(claim: Claim, cells: Iterable[TableCell]) -> str:
    """How often a claim holds in the printed tables: "in all comparisons", "in some", "in none".

    "said in words" for a claim that is not about numbers, "no numbers printed" for one of a plan.
    """
    if "plan" in claim:
        return "no numbers printed"
    if "found" in claim:
        return "said in words"
    holds, of = as_printed(claim, cells)
    if holds == of:
        return "in all comparisons"
    return "in some" if holds else "in none"
