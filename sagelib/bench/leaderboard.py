"""Leaderboards of our records: methods that paired tests do not tell apart share a rank.

A board compares the methods that were trained with one recipe, on one data set, with one network.
Each method runs with the paper's settings and without a changed option. `bench.statistics` decides
which methods are told apart.
"""
from __future__ import annotations

import hashlib
import json
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import plans, quantities, records, summary, timing
from .statistics import Difference, Quantity, Ranking, Spread, difference, rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .schema import Record
    from .summary import ByLabel

LETTERS = [*string.ascii_letters]  # of groups


@dataclass(frozen=True)
class Entry:
    """A method on a board: its numbers, in percent, and the records that they come from.

    places: the best and the worst place that the decided differences leave open, for all methods
    of the board together with 95 %. rank: the best of them, 1 + the number of methods that are
    decided to be better. Both are None where the board decides nothing, or where nothing can be
    decided about this method. letters: of its groups, see `Board`. gap: the difference to the first
    method of the board, None for that one and without a common seed. perturbed: mean accuracy on
    perturbed test images. train: accuracy on the training images. cost: time of a step over
    vanilla's. Each of the three is None if it was not measured.
    """

    method: str
    value: Spread
    places: tuple[int, int] | None
    letters: str
    gap: Difference | None
    perturbed: Spread | None
    train: Spread | None
    cost: float | None
    records: tuple[Record, ...]

    @property
    def rank(self) -> int | None:
        """The first of `places`."""
        return self.places[0] if self.places else None


@dataclass(frozen=True)
class Board:
    """The methods of one recipe, the highest mean first.

    name: for links and files. size: the book's size with this recipe, or None. recipe: in words.
    quantity: what the methods are compared by. groups: letter -> methods. Two methods that can be
    ranked share a letter exactly if they are not told apart. timed: the record of step times, or
    None.
    """

    name: str
    dataset: str
    model: str
    size: str | None
    recipe: str
    quantity: Quantity
    ranking: Ranking
    groups: Mapping[str, tuple[str, ...]]
    entries: tuple[Entry, ...]
    timed: Record | None

    @property
    def can_decide(self) -> bool:
        """Whether any two methods have enough seeds in common to be told apart."""
        return bool(self.groups)


def boards(trained: Iterable[Record], few_shot: Iterable[Record] = (),
           timings: Sequence[Record] = (), convention: str = "pixels, clamped") -> list[Board]:
    """The Board of every data set, network and recipe with at least two methods.

    trained, few_shot: records of runs. timings: records of step times, the oldest first.
    convention: of the budgets of perturbed images, as in `quantities.perturbed`.
    """
    tuned, found = summary.as_tuned(trained), []
    for dataset, model in sorted({(r["dataset"]["name"], r["model"]["name"]) for r in tuned}):
        here = [r for r in tuned
                if (r["dataset"]["name"], r["model"]["name"]) == (dataset, model)]
        rows = {name: (name, {}) for name in summary.by_method(here)}
        recipes = summary.runs_by_row(here, dataset, model, rows)
        found += [(by_label, quantities.ACCURACY) for by_label in recipes.values()]
    quantity = quantities.few_shot()
    for setup in summary.by_setup(summary.as_tuned(few_shot)):
        able = [r for r in setup if quantity.value(r) is not None]
        found.append((summary.by_method(able), quantity))
    perturbed = quantities.perturbed("mean", convention)
    return [_board(by_label, quantity, perturbed, timings)
            for by_label, quantity in found if len(by_label) > 1]


def _board(by_label: ByLabel, quantity: Quantity, perturbed: Quantity,
           timings: Sequence[Record]) -> Board:
    first = next(iter(by_label.values()))[0]
    dataset, model, kind = first["dataset"]["name"], first["model"]["name"], summary.kind_of(first)
    size = "paper" if kind == "paper" else None
    if first["kind"] != "few_shot":
        size = size or plans.size_of(first)
    ranking = rank(by_label, quantity, f"{dataset}, {model}")
    groups = {letter: group for letter, group in zip(LETTERS, ranking.groups, strict=False)}
    timed = _timing(timings, (model, first["model"]["width"]), by_label.keys())
    costs = timing.over_vanilla(timed)

    def entry(method: str) -> Entry:
        runs = by_label[method]
        letters = "".join(letter for letter, group in groups.items() if method in group)
        train = [r.get("final", {}).get("train_accuracy") for r in runs]
        return Entry(method, summary.spread(map(quantity.value, runs)),
                     _places(ranking, method) if letters and ranking.decides else None, letters,
                     None if method == ranking.order[0]
                     else difference(runs, by_label[ranking.order[0]], quantity),
                     _known(map(perturbed.value, runs)), _known(train),
                     costs[method]["median"] if method in costs else None, tuple(runs))

    name = "-".join([dataset, model, _recipe_name(first, size, kind)])
    return Board(name, dataset, model, size, kind, quantity, ranking, groups,
                 tuple(map(entry, ranking.order)), timed)


def _places(ranking, method):
    """The best and the worst place that the decided differences leave a method."""
    signs = ranking.family.signs.items()
    worse = sum((one == method and sign > 0) or (other == method and sign < 0)
                for (one, other), sign in signs)
    return ranking.ranks[method], len(ranking.order) - worse


def _known(values):
    """The Spread of the values that are not None; None without any."""
    there = [value for value in values if value is not None]
    return summary.spread(there) if there else None


def _timing(timings, network, methods):
    """The record of step times of a (network, width) with most of the methods, the newest; None."""
    known = [(len(timing.over_vanilla(r).keys() & methods), k, r) for k, r in enumerate(timings)
             if timing.timed_network(r) == network]
    most = max(known, key=lambda found: found[:2], default=(0, 0, None))
    return most[2] if most[0] else None


def _recipe_name(record, size, kind):
    """A recipe as a part of a link: the book's size, or digits that stand for its words."""
    asked = kind if record["kind"] != "few_shot" else json.dumps(
        [record[k] for k in ("dataset", "model", "recipe")] + [record["chosen"]], sort_keys=True)
    schedule = record["recipe"].get("schedule", "steps")
    name = size or f"recipe-{hashlib.sha256(asked.encode()).hexdigest()[:6]}"
    return name if schedule == "steps" or not size else f"{name}-{schedule}"


def method_rows(boards: Iterable[Board]) -> list[dict[str, Any]]:
    """A plain row for each board and method, for export; None where there is no number."""
    return [{**_place(board), "method": e.method, "rank": e.rank,
             "worst_place": e.places[1] if e.places else None, "groups": e.letters,
             "mean": e.value.mean, "std": e.value.std, "seeds": e.value.n,
             "to_first": e.gap.mean if e.gap else None,
             "to_first_seeds": e.gap.n if e.gap else None,
             "to_first_error_of_seeds": seed_error(e.gap),
             "to_first_error_of_test_set": e.gap.test_error if e.gap else None,
             "perturbed_mean": e.perturbed.mean if e.perturbed else None,
             "train_accuracy": e.train.mean if e.train else None, "step_over_vanilla": e.cost}
            for board in boards for e in board.entries]


def run_rows(boards: Iterable[Board]) -> list[dict[str, Any]]:
    """A plain row for each run: board, method, seed, accuracy and path of its record."""
    return [{**_place(board), "method": e.method, "seed": r["seed"],
             "accuracy": board.quantity.value(r),
             "record": records.path(r, "book/results").as_posix()}
            for board in boards for e in board.entries for r in e.records]


def _place(board):
    return {"board": board.name, "dataset": board.dataset, "model": board.model,
            "recipe": board.recipe}


def seed_error(gap: Difference | None) -> float | None:
    """The standard error that the seeds give a mean difference; None for fewer than two seeds."""
    return gap.std / gap.n**0.5 if gap and gap.std is not None else None


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Plain rows as CSV text, None as an empty cell; "" without rows."""
    return summary.as_csv([*rows[0]], [[*row.values()] for row in rows]) if rows else ""


def as_json(boards: Sequence[Board]) -> str:
    """All rows as JSON text: {"methods": `method_rows`, "runs": `run_rows`}."""
    rows = {"methods": method_rows(boards), "runs": run_rows(boards)}
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"
