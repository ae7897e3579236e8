"""Many records -> the numbers of a table: which runs belong together, mean and standard deviation
over their seeds, what was measured beside what was reported, and the table as CSV or LaTeX.

Whether a difference is decided is a matter of `sagelib.statistics`.
"""
import csv
import io
import json
import statistics
from dataclasses import dataclass

from .quantities import ACCURACY
from .statistics import LEAST_SEEDS, Family, difference


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values; as text
    "83.25 ± 0.31 (3)"."""

    mean: float
    std: float | None
    n: int

    @property
    def interval(self):
        """Half-width of the 95 % t-interval of the mean, None for a single value."""
        if self.std is None:
            return None
        return float(_student().ppf(0.975, self.n - 1)) * self.std / self.n**0.5

    def __str__(self):
        return format(self)

    def __format__(self, spec):
        mean = format(self.mean, spec or ".2f")
        return f"{mean} ({self.n})" if self.std is None else f"{mean} ± {self.std:.2f} ({self.n})"


def _student():
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError("the t-interval needs scipy: pip install 'sagelib[book]'") from error
    return t


def spread(values):
    """Numbers, one per seed -> their Spread; ValueError without any."""
    values = list(values)
    if not values:
        raise ValueError("there is nothing to average: no record has this number")
    return Spread(statistics.fmean(values),
                  statistics.stdev(values) if len(values) > 1 else None, len(values))


final = ACCURACY.value  # test accuracy after the last epoch, percent: what the tables compare


def runs_by_row(records, dataset, model, rows):
    """What was measured for the rows of a table, by recipe: kind -> label -> the row's records by
    seed.

    rows: label -> (method, options), as in a plan. The paper's recipe comes first, then that with
    most records. Of two records of one seed, which differ in memory layout alone, the one that
    finished first counts.
    """
    def run(r):
        return r["dataset"]["name"], r["model"]["name"], r["method"]["name"], r["parameters"].get(
            "options") or {}

    here = [r for r in records if tuned(r)]
    here.sort(key=lambda r: (r["seed"], r.get("finished", "")))
    found = {
        label: [r
                for r in here
                if run(r) == (dataset, model, *row)]
        for label, row in rows.items()
    }
    tables = {kind: {} for kind in by_kind(r for rs in found.values() for r in rs)}
    for label, rs in found.items():
        for r in rs:
            tables[kind_of(r)].setdefault(label, {}).setdefault(r["seed"], r)
    return {
        kind: {label: list(seeds.values())
               for label, seeds in table.items()}
        for kind, table in tables.items()
    }


def compare(said, ours, baseline="vanilla", quantity=ACCURACY):
    """Rows of a table: label, reported, measured, their difference, and the paired difference to
    the baseline.

    said: label -> the paper's number; ours: label -> records of one recipe, as `runs_by_row` gives
    them. A row without records says "not run". A recipe that is not the paper's is not subtracted
    from the paper's number.
    """
    rows = []
    for label, number in said.items():
        if label not in ours:
            rows.append([label, number, "not run", "", ""])
            continue
        here = spread(map(quantity.value, ours[label]))
        pairs = difference(ours[label], ours.get(baseline, []),
                           quantity) if label != baseline else None
        gap = f"{here.mean - number:+.2f}" if ours[label][0]["kind"] == "paper" else ""
        rows.append([label, number, here, gap, str(pairs) if pairs else ""])
    return rows


def against(ours, baseline, what, where, quantity=ACCURACY):
    """The Family of differences to a baseline over equal seeds, for `ours`: label -> records of one
    recipe.

    Its name is made of `what` the rows are, in the plural, and of `where` they were measured: "the
    7 methods against vanilla, CIFAR-10".
    """
    sides = {label: (rs, ours.get(baseline, [])) for label, rs in ours.items() if label != baseline}
    gaps = {label: gap for label, pair in sides.items() if (gap := difference(*pair, quantity))}
    single = len(gaps) == 1
    rows = f"{what.removesuffix('s')} {next(iter(gaps))}" if single else f"{len(gaps)} {what}"
    return Family(f"the {rows} against {baseline}, {where}", gaps)


def evidence(family, label):
    """Three cells for a row of a table: the standard error of its mean difference by the seeds,
    that by the test set, and whether the difference is decided; empty where there is none."""
    gap = family.differences.get(label)
    if gap is None:
        return ["", "", ""]
    return ["" if gap.std is None else gap.std / gap.n**0.5, gap.test_error, family.word(label)]


def machines(ours):
    """The hardware that runs were trained on, in words, for `ours`: label -> records."""
    used = {r["hardware"]["gpu"] or "a CPU" for rs in ours.values() for r in rs}
    return " and ".join(sorted(used))


def in_words(family, ours, baseline, quantity=ACCURACY, outside=()):
    """What a family of `against` decides, what that rests on, and what its recipe can say of the
    paper: sentences for the text below a table. "" without records.

    ours: all rows of the table that have been run, label -> records. outside: labels of the rows
    that the family leaves out.
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


def no_difference(ours, baseline, left_out=()):
    """Why a family without differences has none, in words. left_out: labels of rows that have been
    run and that the family leaves out."""
    if baseline not in ours:
        return "it has not been run"
    if len(ours) == 1:
        verb = "is" if len(left_out) == 1 else "are"
        names = " and ".join(left_out)
        except_for = f" except {names}, which {verb} not in this family" if left_out else ""
        return f"no other row has been run{except_for}"
    return f"no other row{' of this family' if left_out else ''} has a seed in common with it"


def as_csv(header, rows):
    """A table as CSV text; a Spread becomes three columns, mean, std and n."""
    wide = [any(isinstance(row[k], Spread) for row in rows) for k in range(len(header))]
    names = [n for name, three in zip(header, wide, strict=True) for n in (
        (name, f"{name} std", f"{name} n") if three else (name,))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([cell for value, three in zip(row, wide, strict=True) for cell in (
            ((value.mean, value.std, value.n) if isinstance(value, Spread) else (value, None, None))
            if three else (value,))])
    return text.getvalue()


def as_latex(header, rows):
    """A table as LaTeX, for the package booktabs; a Spread reads $83.25 \\pm 0.31$."""
    def cell(value):
        if isinstance(value, Spread):
            spread = "" if value.std is None else f" \\pm {value.std:.2f}"
            return f"${value.mean:.2f}{spread}$"
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        return "".join({"\\": r"\textbackslash{}"}.get(c, f"\\{c}" if c in "&%$#_{}" else c)
                       for c in text)

    lines = [" & ".join(map(cell, row)) + r" \\" for row in (header, *rows)]
    return "\n".join([
        rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", lines[0], r"\midrule",
        *lines[1:], r"\bottomrule", r"\end{tabular}"
    ]) + "\n"


def as_tuned(records):
    """The records whose method ran with the paper's settings and no option changed: what the tables
    compare."""
    return [r for r in records if tuned(r) and not r["parameters"].get("options")]


def tuned(record):
    """Whether the method was asked to run with the paper's settings, where the paper states any."""
    return record["parameters"].get("settings", record["method"]["settings"]) == "paper"


def by_kind(records):
    """kind -> the records of that recipe; the paper's own first, then the one with most records,
    then the longest."""
    found = {}
    for record in records:
        found.setdefault(kind_of(record), []).append(record)

    def place(item):
        kind, runs = item
        return kind != "paper", -len(runs), -max(
            r.get("recipe", {}).get("epochs", 0) for r in runs), kind

    return dict(sorted(found.items(), key=place))


def kind_of(record):
    """The recipe of a record in words: its kind, and for few-shot, whose recipe the paper does not
    state, all that its setup is told apart by."""
    if record["kind"] != "few_shot":
        return record["kind"]
    recipe = {"width": record["model"]["width"], **record["recipe"]}
    return "few_shot: " + ", ".join(
        f"{k} {v}" for k, v in recipe.items() if k not in ("milestones", "decay"))


def by_setup(records):
    """Lists of few-shot records alike in data set, network, recipe and choice of the epoch, so that
    they differ in method and seed; the longest first.

    Of two records of one method and seed, the one that finished first counts.
    """
    found = {}
    for record in sorted(records, key=lambda r: r.get("finished", "")):
        exam = {k: v for k, v in record.get("chosen", {}).get("exam", {}).items() if k != "seed"}
        setup = json.dumps([exam, *(record[k] for k in ("dataset", "model", "recipe"))],
                           sort_keys=True)
        found.setdefault(setup, {}).setdefault((record["method"]["name"], record["seed"]), record)
    return sorted((list(runs.values()) for runs in found.values()), key=len, reverse=True)


def by_method(records):
    """method's name -> its records, by seed."""
    found = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        found.setdefault(record["method"]["name"], []).append(record)
    return found
