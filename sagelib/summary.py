"""Many records -> the numbers of a table: which runs belong together, the mean and spread over their seeds, the
difference to vanilla, what was measured beside what was reported, and the table as CSV or LaTeX."""
import csv
import io
import json
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values; as text "83.25 ± 0.31 (3)"."""

    mean: float
    std: float | None
    n: int

    @property
    def interval(self):
        """Half-width of the 95 % t-interval of the mean, None for a single value."""
        if self.std is None:
            return None
        try:
            from scipy.stats import t
        except ImportError as error:
            raise ImportError("the t-interval needs scipy: pip install 'sagelib[book]'") from error
        return float(t.ppf(0.975, self.n - 1)) * self.std / self.n**0.5

    @property
    def sign(self):
        """1 where the whole 95 % t-interval lies above 0, -1 where it lies below, 0 where that is not decided."""
        if self.std is None or abs(self.mean) <= self.interval:
            return 0
        return 1 if self.mean > 0 else -1

    def __str__(self):
        return format(self)

    def __format__(self, spec):
        mean = format(self.mean, spec or ".2f")
        return f"{mean} ({self.n})" if self.std is None else f"{mean} ± {self.std:.2f} ({self.n})"


def spread(values):
    """Numbers, one a seed -> their Spread; ValueError without any."""
    values = list(values)
    if not values:
        raise ValueError("there is nothing to average: no record has this number")
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired(records, baseline, value):
    """The Spread of value(record) - value(its twin in the baseline), over the seeds that both have; None if there is
    no such seed. Two records of one seed on one side are an error: they are no pair."""
    sides = [{}, {}]
    for side, found in zip(sides, (records, baseline), strict=True):
        for record in found:
            if record["seed"] in side:
                raise ValueError(f"two records of {record['method']['name']} with seed {record['seed']}: they are of "
                                 "different recipes, and no pair")
            side[record["seed"]] = value(record)
    ours, theirs = sides
    shared = sorted(ours.keys() & theirs.keys())
    return spread(ours[seed] - theirs[seed] for seed in shared) if shared else None


def final(record):
    """Test accuracy after the last epoch, percent: what the tables compare."""
    return record["final"]["accuracy"]


def measured(records, dataset, model, rows):
    """What was measured for the rows of a table: the recipe's kind, and label -> the row's records by seed.

    rows: label -> (method, options), as in a plan. All rows are of one recipe, the paper's if there is a record of it,
    else the one with most records; a row that has none of it is left out. (None, {}) where nothing was run.
    """
    def run(r):
        return r["dataset"]["name"], r["model"]["name"], r["method"]["name"], r["parameters"].get("options") or {}

    here = sorted((r for r in records if r["method"]["settings"] == "paper"), key=lambda r: r["seed"])
    found = {label: [r for r in here if run(r) == (dataset, model, *row)] for label, row in rows.items()}
    kind = next(iter(by_kind(r for rs in found.values() for r in rs)), None)
    chosen = {label: [r for r in rs if r["kind"] == kind] for label, rs in found.items()}
    return kind, {label: rs for label, rs in chosen.items() if rs}


def compare(said, ours, baseline="vanilla", value=final):
    """Rows of a table: label, reported, measured, their difference, and the paired difference to the baseline.

    said: label -> the paper's number; ours: label -> records, as `measured` gives them. What was not run says so.
    """
    rows = []
    for label, number in said.items():
        if label not in ours:
            rows.append([label, number, "not run", "", ""])
            continue
        here = spread(map(value, ours[label]))
        pairs = paired(ours[label], ours.get(baseline, []), value) if label != baseline else None
        rows.append([label, number, here, f"{here.mean - number:+.2f}", f"{pairs:+.2f}" if pairs else ""])
    return rows


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
            return f"${value.mean:.2f}$" if value.std is None else f"${value.mean:.2f} \\pm {value.std:.2f}$"
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        return "".join({"\\": r"\textbackslash{}"}.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)

    lines = [" & ".join(map(cell, row)) + r" \\" for row in (header, *rows)]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                      r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_tuned(records):
    """The records whose method ran with the paper's settings and no option of its own: what the tables compare."""
    return [r for r in records if r["method"]["settings"] == "paper" and not r["parameters"].get("options")]


def by_kind(records):
    """kind -> the records of that recipe; the paper's own first, then the one with most records, then the longest."""
    found = {}
    for record in records:
        found.setdefault(record["kind"], []).append(record)
    def place(item):
        kind, runs = item
        return kind != "paper", -len(runs), -max(r.get("recipe", {}).get("epochs", 0) for r in runs), kind
    return dict(sorted(found.items(), key=place))


def by_setup(records):
    """Lists of few-shot records alike in data set, network and recipe, so that they differ in method and seed; the
    longest first."""
    found = {}
    for record in records:
        setup = json.dumps([record[k] for k in ("dataset", "model", "recipe")], sort_keys=True)
        found.setdefault(setup, []).append(record)
    return sorted(found.values(), key=len, reverse=True)


def by_method(records):
    """method's name -> its records, by seed."""
    found = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        found.setdefault(record["method"]["name"], []).append(record)
    return found
