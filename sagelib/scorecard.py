"""The paper's table cells and claims beside our records: reported | measured | verdict.

A cell is what the paper printed in one place of a table, and which runs would measure it. A claim says that some labels
of a table are better than others; the same rule is asked of the printed numbers and of our records.
"""
import re
from dataclasses import dataclass, field, replace

from .summary import measured, paired, spread

SETTINGS = {  # labels of Tables 3 and 7 -> method and options; a tuned value is no option
    "vanilla": ("vanilla", {}), "sage": ("sage", {}), "1 %": ("sage", {}),
    "without saliency-guided mixup": ("sage", {"guided": False}),
    "without rearrangement": ("sage", {"rearranged": False}),
    **{f"{p} %": ("sage", {"fraction": p / 100}) for p in (10, 50, 100)},
    **{f"eta {eta}": ("sage", {"reuse": round(1 - eta, 1)}) for eta in (0.5, 0.7, 1.0)},
    **{f"u {u}": ("sage", {"u": u}) for u in (0.5, 0.6, 1.0)},
}
ROBUST = {4: "cifar10", 5: "cifar100"}


@dataclass(frozen=True)
class Cell:
    """One number of one table: the row of the table it stands in and its label there, and what would measure it:
    data set, network, method with options, and the name of the quantity."""

    table: int
    row: str
    label: str
    reported: float
    dataset: str
    model: str
    method: str
    options: dict = field(hash=False)
    quantity: str


def cells(reported, tuned):
    """Every cell of the paper's seven tables, in their order; the printed ranks of Tables 4 and 5 are not measured.

    reported: table number -> its rows, as `records.reported` reads them. tuned: data set -> SAGE's tuned options for
    PreActResNet18, which are its control rows.
    """
    return [cell for number, rows in reported.items() for row in rows for cell in _of_row(number, dict(row), tuned)]


def _of_row(number, row, tuned):
    if number in (1, 2, 6):
        dataset, model = row.pop("dataset"), row.pop("model")
        quantity = {1: "accuracy", 2: "few-shot accuracy", 6: "hours"}[number]
        return [Cell(number, f"{dataset}, {model}", m, v, dataset, model, m, {}, quantity) for m, v in row.items()]
    if number in ROBUST:
        kind, dataset = row.pop("perturbation"), ROBUST[number]
        return [Cell(number, f"{dataset}, {kind}", m, v, dataset, "preactresnet18", m, {}, kind)
                for m, v in row.items() if kind != "rank"]
    part, setting, found = row.pop("part"), row.pop("setting"), []
    label = f"{part} {setting}" if part in ("eta", "u") else setting
    for dataset, v in row.items():
        method, options = SETTINGS[label]
        options = {k: o for k, o in options.items() if tuned[dataset].get(k) != o}
        run = (dataset, "preactresnet18", method, options, "accuracy")
        found.append(Cell(number, f"{dataset}, {part}", label, v, *run))
    return found


def runs(cells, records, quantities):
    """What was measured for the cells: (cell's table, row, label) -> kind of the recipe -> records by seed.

    quantities: name -> a function from a record to its number, or None where the record does not have it. The paper's
    recipe comes first, then the one with most records in the row.
    """
    found = {}
    for table, row in dict.fromkeys((c.table, c.row) for c in cells):
        here = [c for c in cells if (c.table, c.row) == (table, row)]
        value = quantities.get(here[0].quantity)
        able = [r for r in records if value and value(r) is not None]
        asked = {c.label: (c.method, c.options) for c in here}
        for kind, by_label in measured(able, here[0].dataset, here[0].model, asked).items():
            for label, rs in by_label.items():
                found.setdefault((table, row, label), {})[kind] = rs
    return found


def verdict(reported, values, kind, papers=3):
    """What our runs say of one reported mean of `papers` runs.

    "not run"; "another recipe" for few-shot, whose recipe the paper does not give; "shortened recipe", whose numbers do
    not compare; "one seed"; else "higher" or "lower" where the difference of the two means is decided at 95 %, if the
    paper's runs strayed as ours do, and "not distinguishable" where it is not.
    """
    if not values:
        return "not run"
    if kind == "few_shot":
        return "another recipe"
    if kind != "paper":
        return "shortened recipe"
    if len(values) == 1:
        return "one seed"
    found, n = spread(values), len(values)
    if abs(found.mean - reported) <= found.interval * (1 / n + 1 / papers) ** 0.5 * n**0.5:
        return "not distinguishable"
    return "higher" if found.mean > reported else "lower"


def with_means(cells):
    """The cells, and for Tables 4 and 5 a row of means over the three perturbations, which the text goes by."""
    found = [*cells]
    for number, dataset in ROBUST.items():
        for label in dict.fromkeys(c.label for c in cells if c.table == number):
            three = [c for c in cells if c.table == number and c.label == label]
            mean = sum(c.reported for c in three) / len(three)
            found.append(replace(three[0], row=f"{dataset}, mean", reported=mean, quantity="mean"))
    return found


def pairs(claim, cells):
    """The (better, worse) cells that a claim is about, which stand in one row.

    claim: a dict with `table`, `rows` (a pattern of the rows it speaks of), `better` and `than`, lists of labels, or
    "others" for all the rest of the row. `margin` makes it a claim of "not much worse": so many percent of accuracy,
    or in Table 6, where less is better, so large a part of the other's hours.
    """
    here = [c for c in cells if c.table == claim["table"] and re.search(claim["rows"], c.row)]
    found = [(a, b) for a in here for b in here if a.row == b.row and a.label in claim["better"] and (
        b.label not in claim["better"] if claim["than"] == "others" else b.label in claim["than"])]
    if not found:
        raise ValueError(f"the claim {claim['says']!r} is about no cell of table {claim['table']}")
    return found


def as_printed(claim, cells):
    """How many of the claim's pairs the printed numbers bear out, and how many there are."""
    found, margin = pairs(claim, cells), claim.get("margin", 0)
    if claim["table"] == 6:
        return sum(a.reported < b.reported * (1 + margin) for a, b in found), len(found)
    return sum(a.reported - b.reported > -margin for a, b in found), len(found)


def as_measured(claim, cells, found, quantities, clock):
    """What our records say of a claim: a dict of the pairs it has (`of`), that were run on both sides (`run`), that
    lean its way (`leaning`), that are decided `for` and `against` it, and the `kinds` of recipe they are of.

    Decided is a pair at 95 % for all pairs together (Holm), seed by seed; with records of the paper's recipe, others do
    not count. found: as `runs` gives it. clock: (network, method) -> (least, median, greatest) time of a step, for
    Table 6, where a pair is decided if the ranges are apart.
    """
    asked = pairs(claim, cells)
    if claim["table"] == 6:
        signs = [_apart(clock.get((a.model, a.method)), clock.get((b.model, b.method)), claim.get("margin", 0))
                 for a, b in asked]
        signs, kinds = [s for s in signs if s], ["clock"]
    else:
        differences = [d for pair in asked if (d := _difference(pair, claim, found, quantities))]
        if any(kind == "paper" for kind, _ in differences):
            differences = [(kind, d) for kind, d in differences if kind == "paper"]
        kinds = sorted({kind for kind, _ in differences})
        signs = [(d.mean > 0, decided * (1 if d.mean > 0 else -1)) for (_, d), decided in zip(
            differences, holm([d.p for _, d in differences]), strict=True)]
    return {"of": len(asked), "run": len(signs), "leaning": sum(leans for leans, _ in signs),
            "for": sum(s == 1 for _, s in signs), "against": sum(s == -1 for _, s in signs), "kinds": kinds}


def _apart(ours, theirs, margin):
    """(leans, sign) of "ours takes less than theirs": 1 or -1 where the ranges are apart; None if one is missing."""
    if not ours or not theirs:
        return None
    theirs = [(1 + margin) * t for t in theirs]
    return ours[1] < theirs[1], (ours[2] < theirs[0]) - (ours[0] > theirs[2])


def _difference(pair, claim, found, quantities):
    """(kind, better - worse over their shared seeds, margin added), or None where it was not run."""
    ours, theirs = (found.get((c.table, c.row, c.label), {}) for c in pair)
    for kind in [k for k in ours if k in theirs]:
        difference = paired(ours[kind], theirs[kind], quantities[pair[0].quantity])
        if difference:
            return kind, replace(difference, mean=difference.mean + claim.get("margin", 0))
    return None


def holm(values, level=0.05):
    """Holm's procedure: which of the p-values are decided if all together shall err at most at `level`; 0 or 1 each."""
    decided = [0] * len(values)
    for rank, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[k] >= level / (len(values) - rank):
            break
        decided[k] = 1
    return decided


def word(count, share=1):
    """One word for what `as_measured` counted; `share` of the pairs are enough for the claim."""
    if not count["run"]:
        return "not run"
    if count["against"] > (1 - share) * count["of"]:
        return "contradicted" if not count["for"] else "mixed"
    return "supported" if count["for"] >= share * count["of"] else "undecided"
