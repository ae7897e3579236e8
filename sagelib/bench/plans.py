"""A plan of runs, from YAML: which notebook, with which parameters, at which size -> its cells."""
from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import datasets, methods, models
from ..catalog import names, settings, suited
from . import few_shot_setups, parameters
from .paths import EXPERIMENTS, PLANS
from .timing import timed_network

if TYPE_CHECKING:
    from .schema import Parameters, Record

CATALOGUES = {"dataset": datasets, "model": models, "method": methods}
# parameters that a record's recipe, and its results on episodes, say too
IN_RECIPE = ("epochs", "batch", "lr", "momentum", "nesterov", "weight_decay", "padding", "flip",
             "schedule", "precision", "channels_last", "optimizer", "patience", "resize")
IN_EPISODES = ("ways", "queries", "episodes")


@dataclass(frozen=True)
class RunSpec:
    """One run: a notebook (its name) and the parameters that it is given.

    then: the notebook that evaluates its network, with its own parameters, or None.
    """

    notebook: str
    parameters: Parameters
    then: str | None = None
    then_parameters: Parameters = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name for files: the main parameters, and eight digits for all of them."""
        p = self.parameters
        asked = json.dumps([self.notebook, p], sort_keys=True)
        digits = hashlib.sha256(asked.encode()).hexdigest()[:8]
        if "method" in p:
            main = [p[k] for k in CATALOGUES if k in p]
        else:
            main = [self.notebook, p["model"]]
        return "-".join([*main, f"seed{p['seed']}", digits])

    def matches(self, record: Record) -> bool:
        """Whether a record is of this very run: all that decides a result comes to the same."""
        if record["parameters"].get("trained"):
            return False  # step times on the weights of a run, which no plan asks for
        usual, facts = defaults(self.notebook), {"height": record.get("dataset", {}).get("height")}
        asked = parameters.deciding(self.notebook, {**usual, **self.parameters}, **facts)
        said = {**usual, **_told(record), **record["parameters"]}
        if "seed" in record:  # one of several trained side by side
            said["seed"] = record["seed"]
        if record.get("what") == "step_time":
            said["width"] = timed_network(record)[1]
        had = parameters.deciding(self.notebook, said, **facts)
        return all(had[name] == value for name, value in asked.items())

    def evaluated(self, record: Record) -> bool:
        """Whether a record of this run holds the evaluation that the cell asks for, if any."""
        if not self.then:
            return True
        usual, facts = defaults(self.then), {"test": record["dataset"]["test"]}
        asked = parameters.deciding(self.then, {**usual, **self.then_parameters}, **facts)
        usual = parameters.deciding(self.then, usual, **facts)
        return any(e["what"] == self.then and {**usual, **e["parameters"]}.items() >= asked.items()
                   for e in record.get("evaluations", []))


def _told(record):
    """Parameters as the other parts of a record tell them.

    Not every record has all of them among its parameters.
    """
    recipe, tried = record.get("recipe", {}), record.get("episodes", [])
    found = {name: record[name]["name"] for name in CATALOGUES if name in record}
    if "method" in record:
        found["width"] = record["model"]["width"]
        found["settings"] = record["method"]["settings"]
    if record.get("kind") == "few_shot":
        found["setup"] = few_shot_setups.setup_of(record)
    found |= {name: recipe[name] for name in IN_RECIPE if name in recipe}
    if tried:
        found |= {name: tried[0][name] for name in IN_EPISODES}
        found["shots"] = list(dict.fromkeys(e["shots"] for e in tried))
        found["distances"] = list(dict.fromkeys(e["distance"] for e in tried))
    return found


@functools.cache
def defaults(notebook: str) -> Parameters:
    """The parameters of an experiment notebook and their default values, from its cell."""
    file = EXPERIMENTS / f"{notebook}.ipynb"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.ipynb")))
        raise ValueError(f"there is no experiment {notebook!r}; known: "
                         f"{known or 'none outside a checkout'}")
    cells = json.loads(file.read_text())["cells"]
    cell = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    lines: list[Any] = ast.parse("".join(cell["source"])).body
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


def read(file: str | Path, size: str) -> tuple[str, list[RunSpec]]:
    """The title of the plan in a YAML file, and its cells at a size; ValueError says what is wrong.

    Each cell runs with every seed of the size, one that names a `seed` with that one.
    """
    plan, known = _yaml(file), sizes(file)
    _known(plan, {"title", "notebook", "then", "expect", "cells", "sizes"},
           {"title", "notebook", "cells"}, file)
    _checked_expect(plan.get("expect"), file)
    if size not in known:
        raise ValueError(f"{file}: unknown size {size!r}; known: {', '.join(known)}")
    how = known[size]
    _known(how, {"seeds", "parameters", "only", "instead", "then"}, {"seeds", "parameters"},
           f"size {size}")
    _known(how["parameters"], set(defaults(plan["notebook"])), set(), f"size {size}")
    then = plan.get("then")
    asked = how.get("then", {}) if then else {}
    if then:
        _known(asked, set(defaults(then)), set(), f"size {size}, then")
    cells = {}
    rows = list(_rows(plan, how, file))
    for k in range(max(1, len(how["seeds"]))):  # a whole table with one seed before the next seed
        for row in rows:
            seeds = [row["seed"]] if "seed" in row else how["seeds"]
            for seed in seeds[k:k + 1]:
                given = {**row, **how["parameters"], "seed": seed}
                cell = RunSpec(plan["notebook"], given, then, asked)
                _checked(cell, file)
                cells[cell.name] = cell
    return plan["title"], list(cells.values())


def by_size(file: str | Path) -> dict[str, list[RunSpec]]:
    """The cells of a plan at each of its sizes."""
    return {size: read(file, size)[1] for size in sizes(file)}


def sizes(file: str | Path | None = None) -> dict[str, Any]:
    """The sizes that a plan can be read at, from sizes.yml beside it or else from the book's.

    A plan's own entries take the place of those; it does not have the sizes for which it says null.
    Without a plan, the book's sizes.
    """
    if file is None:
        return _yaml(PLANS / "sizes.yml") if (PLANS / "sizes.yml").exists() else {}
    beside = Path(file).with_name("sizes.yml")
    known = _yaml(beside if beside.exists() else PLANS / "sizes.yml")
    own = _yaml(file).get("sizes", {})
    return {size: {**how, **own.get(size, {})} for size, how in known.items()
            if own.get(size, {}) is not None}


def size_of(record: Record) -> str | None:
    """The book's size whose recipe a training run's record has, whatever its schedule; or None."""
    run = {name: record[name]["name"] for name in CATALOGUES}
    run["seed"] = record["seed"]
    run |= {k: v for k, v in record["parameters"].items() if k in ("settings", "options")}
    run["schedule"] = record["recipe"].get("schedule", "steps")
    return next((size for size, how in sizes().items()
                 if RunSpec("train", {**run, **how["parameters"]}).matches(record)), None)


def recipe_name(record: Record) -> str:
    """A short name of a run's recipe: its size's, or the first word of its kind.

    Such as "laptop", "shortened" or, with another schedule than the paper's, "laptop, one_cycle".
    """
    if record["kind"] == "few_shot":
        return f"few-shot, {few_shot_setups.setup_of(record)} set-up"
    name = size_of(record) or record["kind"].split(":")[0]
    schedule = record["recipe"].get("schedule")
    return f"{name}, {schedule}" if schedule else name


def recipe_text(record: Record) -> str:
    """A training run's recipe in words, as "the recipe is …" goes on: its name, what differs."""
    if record["kind"] == "paper":
        return "the paper's"
    return f"{recipe_name(record)} ({record['kind']})" if size_of(record) else record["kind"]


def variant(run: Parameters) -> str:
    """What a run's parameters say beside data set, network, method and options, as labels have it.

    The few-shot set-up, the schedule and the learning rate where a plan names them, such as
    "one_cycle" or "lr 0.2".
    """
    rate = f"lr {run['lr']:g}" if "lr" in run else ""
    return ", ".join(filter(None, (run.get("setup", ""), run.get("schedule", ""), rate)))


def expected(file: str | Path) -> dict[str, Any] | None:
    """Which numbers the runs of a plan should come to, its entry `expect`; None without it.

    `table` and `row` of the paper and `labels` in that row, as `scorecard.cells` names them; or
    only `labels`, which then are methods that the paper has no numbers for.
    """
    return _yaml(file).get("expect")


def _checked_expect(expect, file):
    if expect is None:
        return
    where, table = f"{file}, expect", isinstance(expect, dict) and "table" in expect
    _known(expect, {"table", "row", "labels"}, {"row", "labels"} if table else {"labels"}, where)
    if table and expect["table"] not in range(1, 8):
        raise ValueError(f"{where}: table is {expect['table']!r}; the paper has Tables 1 to 7")
    if not isinstance(expect["labels"], list) or not expect["labels"]:
        raise ValueError(f"{where}: labels is {expect['labels']!r}; it must be a list of names")


def _checked(cell, file):
    """ValueError for a parameter of the wrong type, or one that the sweep itself gives."""
    asked = {**cell.parameters, **cell.then_parameters}
    own = next((name for name in asked if name in parameters.ASIDE), None)
    if own:
        own_seeds = "write seed: [0, 1], so that each seed is a cell"
        why = own_seeds if own == "more_seeds" else "the sweep gives it"
        raise ValueError(f"{file}: {own} is not for a plan: {why}")
    try:
        parameters.checked(**{k: v for k, v in asked.items() if k in parameters.KINDS})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def table_rows(file: str | Path) -> dict[tuple[str, str], Parameters]:
    """(label, data set) of a table's row -> the parameters of the run that measures it."""
    found = _combinations(_yaml(file), file)
    return {(label, row["dataset"]): row for label, row in found if label}


def _rows(plan, how, file):
    """The combinations of the plan that are in a size."""
    only = {k: v if isinstance(v, list) else [v] for k, v in how.get("only", {}).items()}
    for _, row in _combinations(plan, file):
        if all(row.get(k) in values for k, values in only.items()):
            yield {**row, **how.get("instead", {})}


def _combinations(plan, file):
    """Every combination of the lists in the plan's cells, with the label of its row in a table.

    The label is "" without `rows`. Names are checked; `all` is the whole catalogue, of methods
    those that can train the network.
    """
    allowed = defaults(plan["notebook"])
    for block in plan["cells"]:
        rows = None
        if isinstance(block, dict) and "options" in allowed:
            rows, block = block.get("rows"), {k: v for k, v in block.items() if k != "rows"}
        given = {"method", "options"} if rows else set()  # by the rows
        _known(block, {*allowed, "rows"} - given, (CATALOGUES.keys() & allowed) - given, file)
        choices = {k: v if isinstance(v, list) else [v] for k, v in block.items()}
        for k in CATALOGUES.keys() & block:
            if block[k] == "all":
                choices[k] = names(CATALOGUES[k])
        for values in itertools.product(*choices.values()):
            row = dict(zip(choices, values, strict=True))
            if block.get("method") == "all" and row["model"] in names(models) and (
                    row["method"] not in suited(methods, models, row["model"])):
                continue
            for label, found in _labelled(row, rows, file) if rows else [("", row)]:
                _check_names(found, file)
                yield label, found


def _check_names(row, file):
    for k, package in CATALOGUES.items():
        if k in row and row[k] not in names(package):
            raise ValueError(f"{file}: unknown {k} {row[k]!r}; known: {', '.join(names(package))}")


def _labelled(row, rows, file):
    """A row of parameters with the method and options of each label.

    An option that is tuned so for this data set and network is left out.
    """
    if not isinstance(rows, dict) or not parameters.KINDS["sides"].fits([*rows.values()]):
        raise ValueError(f"{file}: rows is {rows!r}; it must map each label to a method and its "
                         "options")
    for label, (method, options) in rows.items():
        found = {**row, "method": method}
        if method in names(methods):
            place = (row.get("settings", "paper"), row["dataset"], row["model"])
            tuned = settings(methods, method, *place)
            options = {k: v for k, v in options.items() if tuned.get(k) != v}
        if options:
            found["options"] = options
        yield label, found


def _known(found, allowed, needed, where):
    if not isinstance(found, dict):
        raise ValueError(f"{where}: a mapping of names and values is expected, not {found!r}")
    wrong, missing = sorted(set(found) - allowed), sorted(needed - set(found))
    if wrong:
        known = ", ".join(sorted(allowed))
        raise ValueError(f"{where}: unknown entry {wrong[0]!r}; known: {known}")
    if missing:
        raise ValueError(f"{where}: the entry {missing[0]!r} is missing")


def _yaml(file):
    try:
        import yaml
    except ImportError as error:
        raise ImportError("plans need PyYAML: pip install 'sagelib[book]'") from error
    if not Path(file).exists():
        raise FileNotFoundError(f"there is no plan {file}; the book's are in book/plans")
    try:
        return _parsed(Path(file).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error


@functools.cache  # a plan is read at several sizes, and nothing changes it
def _parsed(text):
    import yaml
    return yaml.safe_load(text)
