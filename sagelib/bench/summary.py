"""Many records -> a table: which runs belong together, mean and standard deviation over seeds.

What was measured beside what was reported, in words, as CSV or as LaTeX. Whether a difference is
decided is a matter of `bench.statistics`.
"""
from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from typing import TYPE_CHECKING, Any

from .few_shot_setups import setup_of
from .quantities import ACCURACY
from .statistics import LEAST_SEEDS, Family, Quantity, Spread, difference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .schema import Record

    ByLabel = Mapping[str, Sequence[Record]]  # a row's label -> its records, all of one recipe

LATEX = str.maketrans({"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}})


def spread(values: Iterable[float]) -> Spread:
    """The Spread of numbers, one per seed; ValueError without any."""
    values = list(values)
    if not values:
        raise ValueError("there is nothing to average: no record has this number")
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, len(values))


final = ACCURACY.value  # test accuracy after the last epoch, percent: what the tables compare


def runs_by_row(records: Iterable[Record], dataset: str, model: str,
                rows: Mapping[str, tuple[str, Mapping[str, Any]]]
                ) -> dict[str, dict[str, list[Record]]]:
    """What was measured for a table, by recipe: kind -> label -> the row's records by seed.

    rows: label -> (method, options), as in a plan. The paper's recipe comes first, then that with
    most records. Of two records of one seed, which differ in memory layout alone, the one that
    finished first counts.
    """
    def run(r):
        options = r["parameters"].get("options") or {}
        return r["dataset"]["name"], r["model"]["name"], r["method"]["name"], options

    here = [r for r in records if tuned(r)]
    here.sort(key=lambda r: (r["seed"], r.get("finished", "")))
    found = {label: [r for r in here if run(r) == (dataset, model, *row)]
             for label, row in rows.items()}
    tables, seen = {kind: {} for kind in by_kind(itertools.chain(*found.values()))}, set()
    for label, rs in found.items():
        for r in rs:
            kind = kind_of(r)
            if (label, kind, r["seed"]) not in seen:
                seen.add((label, kind, r["seed"]))
                tables[kind].setdefault(label, []).append(r)
    return tables


def compare(said: Mapping[str, float], ours: ByLabel, baseline: str = "vanilla",
            quantity: Quantity = ACCURACY) -> list[list[Any]]:
    """Rows of a table: label, reported, measured, the difference of the two, that to the baseline.

    said: label -> the paper's number; ours: the rows of one recipe, from `runs_by_row`. A row
    without records says "not run". A recipe that is not the paper's is not subtracted from the
    paper's number.
    """
    rows: list[list[Any]] = []
    for label, number in said.items():
        if label not in ours:
            rows.append([label, number, "not run", "", ""])
            continue
        here, pairs = spread(map(quantity.value, ours[label])), None
        if label != baseline:
            pairs = difference(ours[label], ours.get(baseline, []), quantity)
        gap = f"{here.mean - number:+.2f}" if ours[label][0]["kind"] == "paper" else ""
        rows.append([label, number, here, gap, str(pairs) if pairs else ""])
    return rows


def against(ours: ByLabel, baseline: str, what: str, where: str,
            quantity: Quantity = ACCURACY) -> Family:
    """The Family of differences to a baseline over equal seeds.

    Its name is made of `what` the rows are, in the plural, and of `where` they were measured: "the
    7 methods against vanilla, CIFAR-10".
    """
    others = {label: rs for label, rs in ours.items() if label != baseline}
    gaps = {label: difference(rs, ours.get(baseline, []), quantity) for label, rs in others.items()}
    known = {label: gap for label, gap in gaps.items() if gap}
    rows = f"{len(known)} {what}"
    if len(known) == 1:
        rows = f"{what.removesuffix('s')} {next(iter(known))}"
    return Family(f"the {rows} against {baseline}, {where}", known)


def evidence(family: Family, label: str) -> list[str | float]:
    """Three cells for a row: the errors of its mean difference, and what is decided.

    They are the standard errors by seeds and by test set. A cell without a value is "".
    """
    gap = family.differences.get(label)
    if gap is None:
        return ["", "", ""]
    return ["" if gap.std is None else gap.std / gap.n**0.5, gap.test_error, family.word(label)]


def machines(ours: ByLabel) -> str:
    """The hardware that runs were trained on, in words."""
    used = {r["hardware"]["gpu"] or "a CPU" for rs in ours.values() for r in rs}
    return " and ".join(sorted(used))


def in_words(family: Family, ours: ByLabel, baseline: str, quantity: Quantity = ACCURACY,
             outside: Collection[str] = ()) -> str:
    """What a family of `against` decides, on what grounds, and what that says of the paper.

    Sentences for the text below a table; "" without records. ours: all rows of the table that have
    been run. outside: labels of the rows that the family leaves out.
    """
    left_out = [label for label in outside if label in ours]
    ours = {label: rs for label, rs in ours.items() if label not in left_out}
    if not ours:
        return ""
    recipe = "The recipe is the paper's."
    if next(iter(ours.values()))[0]["kind"] != "paper":
        recipe = ("The recipe is not the paper's: its numbers compare with each other, and neither "
                  "support nor contradict the paper.")
    gaps = family.differences
    if not gaps:
        why = no_difference(ours, baseline, left_out)
        return f"There is no difference to {baseline} to decide, since {why}. {recipe}"
    few = [label for label, gap in gaps.items() if gap.n < LEAST_SEEDS]
    rest = "The difference rests" if len(gaps) == 1 else "All differences rest"
    if len(few) < len(gaps):
        noun, verb = ("difference", "rests") if len(few) == 1 else ("differences", "rest")
        rest = f"The {noun} for {', '.join(few)} {verb}"
    seeds = f" {rest} on fewer than {LEAST_SEEDS} seeds, which decide nothing." if few else ""
    images = "The error of the test set is computed image by image."
    if any(quantity.correct(r) is None for rs in ours.values() for r in rs):
        images = ("Not every record says which test images are right; there the error of the test "
                  "set is that of different images, which is too large.")
    return f"*{family.rule}* {family.sentence}{seeds} {images} {recipe}"


def no_difference(ours: ByLabel, baseline: str, left_out: Sequence[str] = ()) -> str:
    """Why a family has no difference, in words.

    `left_out`: labels of rows that were run but are not in it.
    """
    if baseline not in ours:
        return "it has not been run"
    if len(ours) == 1:
        verb = "is" if len(left_out) == 1 else "are"
        names = " and ".join(left_out)
        except_for = f" except {names}, which {verb} not in this family" if left_out else ""
        return f"no other row has been run{except_for}"
    return f"no other row{' of this family' if left_out else ''} has a seed in common with it"


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as CSV text; a Spread becomes three columns, mean, std and n."""
    def three(value):
        return (value.mean, value.std, value.n) if type(value) is Spread else (value, "", "")

    columns = [3 if any(type(row[k]) is Spread for row in rows) else 1 for k in range(len(header))]
    names = [(name, f"{name} std", f"{name} n") for name in header]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (names, *(map(three, row) for row in rows)):
        cells = [cell[:n] for cell, n in zip(row, columns, strict=True)]
        writer.writerow(itertools.chain(*cells))
    return text.getvalue()


def as_latex(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as LaTeX, for the package booktabs; a Spread reads $83.25 \\pm 0.31$."""
    def cell(value):
        if type(value) is Spread:
            std = "" if value.std is None else f" \\pm {value.std:.2f}"
            return f"${value.mean:.2f}{std}$"
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        return text.translate(LATEX)

    top, *lines = [" & ".join(map(cell, row)) + r" \\" for row in (header, *rows)]
    lines = [rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", top, r"\midrule", *lines,
             r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def as_tuned(records: Iterable[Record]) -> list[Record]:
    """The records that the tables compare: the paper's settings of a method, no option changed."""
    return [r for r in records if tuned(r) and not r["parameters"].get("options")]


def tuned(record: Record) -> bool:
    """Whether the method was asked to run with the paper's settings, where the paper states any."""
    return record["parameters"].get("settings", record["method"]["settings"]) == "paper"


def by_kind(records: Iterable[Record]) -> dict[str, list[Record]]:
    """kind -> its records; the paper's recipe first, then most records, then the longest."""
    found = {}
    for record in records:
        found.setdefault(kind_of(record), []).append(record)

    def place(kind):
        epochs = max(r.get("recipe", {}).get("epochs", 0) for r in found[kind])
        return kind != "paper", -len(found[kind]), -epochs, kind

    return {kind: found[kind] for kind in sorted(found, key=place)}


def accuracy(records: Iterable[Record] | None) -> Spread | str:
    """Mean ± standard deviation of the final accuracies, or "not run" without a record."""
    return spread(map(final, records)) if records else "not run"


def kind_of(record: Record) -> str:
    """The recipe of a record in words: its kind.

    For few-shot, whose recipe the paper does not state, it is all that tells setups apart.
    """
    if record["kind"] != "few_shot":
        return record["kind"]
    recipe = {"width": record["model"]["width"], **record["recipe"]}
    words = [f"{k} {v}" for k, v in recipe.items() if k not in ("milestones", "decay")]
    return f"few_shot: {setup_of(record)} set-up, {', '.join(words)}"


def by_setup(records: Iterable[Record]) -> list[list[Record]]:
    """Lists of few-shot records that differ in method and seed alone, the longest first.

    Data set, network, recipe, loss and choice of the epoch are equal within a list. Of two records
    of one method and seed, the one that finished first counts.
    """
    found = {}
    for record in sorted(records, key=lambda r: r.get("finished", "")):
        exam = {k: v for k, v in record.get("chosen", {}).get("exam", {}).items() if k != "seed"}
        alike = [exam, record["method"].get("loss"),
                 *(record[k] for k in ("dataset", "model", "recipe"))]
        setup = found.setdefault(json.dumps(alike, sort_keys=True), {})
        setup.setdefault((record["method"]["name"], record["seed"]), record)
    return sorted((list(runs.values()) for runs in found.values()), key=len, reverse=True)


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """method's name -> its records, by seed."""
    found = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        found.setdefault(record["method"]["name"], []).append(record)
    return found
