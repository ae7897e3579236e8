"""The paper's table cells and claims beside our records: reported | measured | verdict.

A cell is what the paper printed in one place of a table, and which runs would measure it. A claim
says that some labels of a table are better than others; the same rule is asked of the printed
numbers and of our records. Only the paper's recipe with three seeds or more can support or
contradict anything.
"""
import functools
import re
from dataclasses import dataclass, field, replace

from . import plans, quantities, records, timing
from .statistics import LEAST_SEEDS, Family, difference, to_reported
from .summary import runs_by_row

ROBUST = {4: "cifar10", 5: "cifar100"}


@dataclass(frozen=True)
class TableCell:
    """One number of one table: the row of the table it stands in and its label there, and what
    would measure it: data set, network, method with options, and the name of the quantity."""

    table: int
    row: str
    label: str
    reported: float
    dataset: str
    model: str
    method: str
    options: dict = field(hash=False)
    quantity: str


def cells(reported):
    """Every cell of the paper's seven tables, in their order; the printed ranks of Tables 4 and 5
    are not measured.

    reported: table number -> its rows, as `records.reported` reads them. The rows of Tables 3 and 7
    are runs of their plans.
    """
    return [
        cell for number, rows in reported.items() for row in rows
        for cell in _of_row(number, dict(row))
    ]


def _of_row(number, row):
    if number in (1, 2, 6):
        dataset, model = row.pop("dataset"), row.pop("model")
        quantity = {1: "accuracy", 2: "few-shot accuracy", 6: "hours"}[number]
        return [
            TableCell(number, f"{dataset}, {model}", m, v, dataset, model, m, {}, quantity)
            for m, v in row.items()
        ]
    if number in ROBUST:
        kind, dataset = row.pop("perturbation"), ROBUST[number]
        return [
            TableCell(number, f"{dataset}, {kind}", m, v, dataset, "preactresnet18", m, {}, kind)
            for m, v in row.items()
            if kind != "rank"
        ]
    part, setting, found = row.pop("part"), row.pop("setting"), []
    label = f"{part} {setting}" if part in ("eta", "u") else setting
    for dataset, v in row.items():
        run = _planned(number)[label, dataset]
        run = (dataset, run["model"], run["method"], run.get("options", {}), "accuracy")
        found.append(TableCell(number, f"{dataset}, {part}", label, v, *run))
    return found


@functools.cache
def _planned(number):
    return plans.table_rows(plans.PLANS / f"table_{number}.yml")


@dataclass(frozen=True)
class Book:
    """All that the scorecard is made from: the cells of the paper's tables (`wide`: with the rows
    of means), what was measured for them (`found`, see `runs`), the quantities, and the times of
    steps (`clock`: (network, method) -> least, median, greatest multiple of vanilla's step) on a
    `machine` for each network."""

    cells: list
    wide: list
    found: dict
    quantities: dict
    clock: dict
    machine: dict


def book(results=records.RESULTS, convention="pixels, clamped"):
    """The Book of the records under `results`; `convention` is that of the budgets in Tables 4 and
    5."""
    here, numbers = printed(), quantities_by_name(convention)
    every = [*records.every(results), *records.every(results, "few_shot")]
    timed, clock, machine = records.timings(results, "step_time"), {}, {}
    for model in sorted({c.model for c in here if c.table == 6}):
        if record := timing.of_methods(timed, model, [c.method for c in here if c.table == 6]):
            machine[model] = record["hardware"]["gpu"] or "a CPU"
            for name, r in timing.over_vanilla(record).items():
                clock[model, name] = [r["low"], r["median"], r["high"]]
    wide = with_means(here)
    return Book(here, wide, runs(wide, every, numbers), numbers, clock, machine)


def printed():
    """`cells` of the paper's seven tables as the repository holds them."""
    return cells({k: records.reported(k) for k in range(1, 8)})


def quantities_by_name(convention="pixels, clamped"):
    """The quantity of each name in a Cell, but for "hours"; `convention` as for `book`."""
    perturbed = {
        n: quantities.perturbed(n, convention)
        for n in (*quantities.PERTURBATIONS, "mean")
    }
    return {
        "accuracy": quantities.ACCURACY, "few-shot accuracy": quantities.few_shot(), **perturbed
    }


def runs(cells, records, quantities):
    """What was measured for the cells: (cell's table, row, label) -> kind of the recipe -> records
    by seed.

    quantities: name -> `statistics.Quantity`. The paper's recipe comes first, then the one with
    most records in the row.
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


def recipe_word(kind):
    """What is to be said of numbers of a recipe that is not the paper's; "" for the paper's."""
    words = {"paper": "", "few_shot": "another recipe", "clock": "another machine", None: "not run"}
    name = kind and kind.split(":")[0]
    return words.get(name, f"{name} recipe")


def verdicts(book):
    """What our runs say of each reported number: (table, row, label) -> a word.

    "not run"; "another machine" for Table 6; "another recipe" for few-shot, whose recipe the paper
    does not give; "shortened recipe", "longer recipe" or "changed recipe", whose numbers do not
    compare; "fewer than 3 seeds"; else "higher" or "lower" where the difference to the paper's mean
    is decided, all cells of a table together, and "not distinguishable" where it is not.
    """
    words, families = {}, {}
    for cell in book.cells:
        place = (cell.table, cell.row, cell.label)
        kind, ran = next(iter(book.found.get(place, {}).items()), (None, []))
        if cell.table == 6:
            kind = "clock" if (cell.model, cell.method) in book.clock else None
        words[place] = recipe_word(kind) or f"fewer than {LEAST_SEEDS} seeds"
        if kind == "paper" and len(ran) >= LEAST_SEEDS:
            gap = to_reported(ran, cell.reported, book.quantities[cell.quantity])
            families.setdefault(cell.table, {})[place] = gap
    for table, gaps in families.items():
        signs = Family(f"the measured cells of Table {table}", gaps).signs
        words |= {
            place: {1: "higher", -1: "lower", 0: "not distinguishable"}[sign]
            for place, sign in signs.items()
        }
    return words


def progress(book):
    """How far the reproduction is: counts of cells, by what has been run.

    `all`; `reproduced`: the paper's recipe with three seeds or more; `begun`: the paper's recipe
    with fewer; `other`: only another recipe or machine; `none`: nothing.
    """
    count = {"all": len(book.cells), "reproduced": 0, "begun": 0, "other": 0, "none": 0}
    for word in verdicts(book).values():
        part = {
            "higher": "reproduced", "lower": "reproduced", "not distinguishable": "reproduced",
            "not run": "none", f"fewer than {LEAST_SEEDS} seeds": "begun"
        }.get(word, "other")
        count[part] += 1
    return count


def progress_text(book):
    """`progress` in two sentences, for the front page and the README."""
    n = progress(book)
    begun = f", {n['begun']} more with fewer seeds" if n["begun"] else ""
    return (f"Of the {n['all']} numbers in the paper's tables, this book has reproduced "
            f"{n['reproduced']} with the "
            f"paper's own recipe and {LEAST_SEEDS} seeds or more{begun}. For {n['other']} numbers "
            "there are runs of another recipe or machine, such as a shortened training, which "
            "neither confirm nor refute the paper; "
            f"{n['none']} have not been run yet.")


def with_means(cells):
    """The cells, and for Tables 4 and 5 a row of means over the three perturbations, which the text
    goes by."""
    found = [*cells]
    for number, dataset in ROBUST.items():
        for label in dict.fromkeys(c.label for c in cells if c.table == number):
            three = [c for c in cells if c.table == number and c.label == label]
            mean = sum(c.reported for c in three) / len(three)
            found.append(replace(three[0], row=f"{dataset}, mean", reported=mean, quantity="mean"))
    return found


def pairs(claim, cells):
    """The (better, worse) cells that a claim is about, which stand in one row.

    claim: a dict with `table`, `rows` (a pattern of the rows it speaks of), `better` and `than`,
    lists of labels, or "others" for all the rest of the row. `margin` makes it a claim of "not much
    worse": so many percent of accuracy, or in Table 6, where less is better, so large a part of the
    other's hours.
    """
    here = [c for c in cells if c.table == claim["table"] and re.search(claim["rows"], c.row)]
    found = [
        (a, b) for a in here for b in here if a.row == b.row and a.label in claim["better"] and
        (b.label not in claim["better"] if claim["than"] == "others" else b.label in claim["than"])
    ]
    if not found:
        raise ValueError(f"the claim {claim['says']!r} is about no cell of table {claim['table']}")
    return found


def as_printed(claim, cells):
    """How many of the claim's pairs the printed numbers bear out, and how many there are."""
    found, margin = pairs(claim, cells), claim.get("margin", 0)
    if claim["table"] == 6:
        return sum(a.reported < b.reported * (1 + margin) for a, b in found), len(found)
    return sum(a.reported - b.reported > -margin for a, b in found), len(found)


def as_measured(claim, book):
    """What our records say of a claim: a dict of the pairs it has (`of`), that were run on both
    sides (`run`), that lean its way (`leaning`), that are decided `for` and `against` it, and the
    `kinds` of recipe they are of.

    The pairs of a claim are decided together, over their shared seeds (`statistics.Family`). If
    there are records of the paper's recipe, others do not count. In Table 6 a pair is decided where
    the ranges of the times are apart.
    """
    asked = pairs(claim, book.wide)
    if claim["table"] == 6:
        signs = [_apart(book.clock.get((a.model, a.method)), book.clock.get((b.model, b.method)),
                        claim.get("margin", 0)) for a, b in asked]
        signs, kinds = [s for s in signs if s], ["clock"]
    else:
        gaps = [d for pair in asked if (d := _difference(pair, claim, book))]
        if any(kind == "paper" for kind, _ in gaps):
            gaps = [(kind, d) for kind, d in gaps if kind == "paper"]
        kinds = sorted({kind for kind, _ in gaps})
        decided = Family(f"the claim {claim['says']!r}", dict(enumerate(d for _, d in gaps))).signs
        signs = [(d.mean > 0, decided[k]) for k, (_, d) in enumerate(gaps)]
    return {"of": len(asked), "run": len(signs), "leaning": sum(leans for leans, _ in signs),
            "for": sum(s == 1 for _, s in signs), "against": sum(s == -1 for _, s in signs),
            "kinds": kinds if signs else []}


def _apart(ours, theirs, margin):
    """(leans, sign) of "ours takes less than theirs": 1 or -1 where the ranges are apart; None if
    one is missing."""
    if not ours or not theirs:
        return None
    theirs = [(1 + margin) * t for t in theirs]
    return ours[1] < theirs[1], (ours[2] < theirs[0]) - (ours[0] > theirs[2])


def _difference(pair, claim, book):
    """(kind, better - worse over their shared seeds, margin added), or None where it was not
    run."""
    ours, theirs = (book.found.get((c.table, c.row, c.label), {}) for c in pair)
    for kind in [k for k in ours if k in theirs]:
        gap = difference(ours[kind], theirs[kind], book.quantities[pair[0].quantity])
        if gap:
            return kind, replace(gap, mean=gap.mean + claim.get("margin", 0))
    return None


def word(count, share=1):
    """The verdict on a claim from what `as_measured` counted; `share` of the pairs are enough for
    the claim.

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


def printed_word(claim, cells):
    """How a claim fares in the printed tables: "in all comparisons", "in some", "in none", or "said
    in words"."""
    if "found" in claim:
        return "said in words"
    holds, of = as_printed(claim, cells)
    return "in all comparisons" if holds == of else "in some" if holds else "in none"
