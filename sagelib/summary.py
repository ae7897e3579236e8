"""Many records -> the numbers of a table: which runs belong together, and the mean and spread over their seeds."""
import json
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values; as text "83.25 ± 0.31 (3)"."""

    mean: float
    std: float | None
    n: int

    def __str__(self):
        return f"{self.mean:.2f} ({self.n})" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f} ({self.n})"


def spread(values):
    """Numbers, one a seed -> their Spread; ValueError without any."""
    values = list(values)
    if not values:
        raise ValueError("there is nothing to average: no record has this number")
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def as_tuned(records):
    """The records whose method ran with the paper's settings and no option of its own: what the tables compare."""
    return [r for r in records if r["method"]["settings"] == "paper" and not r["parameters"].get("options")]


def by_kind(records):
    """kind -> the records of that recipe; the paper's own first, then the recipe with most records."""
    found = {}
    for record in records:
        found.setdefault(record["kind"], []).append(record)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "paper", -len(item[1]), item[0])))


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
