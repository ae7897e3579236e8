"""A plan of runs, from YAML: which notebook, with which parameters, at which size -> its cells."""
import ast
import functools
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

from .. import datasets, methods, models
from ..catalog import names, settings
from . import parameters
from .paths import EXPERIMENTS, PLANS
from .timing import timed_network

CATALOGUES = {"dataset": datasets, "model": models, "method": methods}


@dataclass(frozen=True)
class RunSpec:
    """One run: the notebook (its name), the parameters that it is given, and the notebook that
    evaluates its network, or None, with its parameters."""

    notebook: str
    parameters: dict
    then: str | None = None
    then_parameters: dict = field(default_factory=dict)

    @property
    def name(self):
        """What it is, in a name for files: the main parameters, and eight digits for all of
        them."""
        p = self.parameters
        digits = hashlib.sha256(json.dumps([self.notebook, p],
                                           sort_keys=True).encode()).hexdigest()[:8]
        main = [p[k]
                for k in CATALOGUES
                if k in p] if "method" in p else [self.notebook, p["model"]]
        return "-".join([*main, f"seed{p['seed']}", digits])

    def matches(self, record):
        """Whether a record is of this very run: what was asked of both comes to the same, where it
        decides a result."""
        usual, facts = defaults(self.notebook), {"height": record.get("dataset", {}).get("height")}
        # one of several trained side by side
        seed = {"seed": record["seed"]} if "seed" in record else {}
        asked = parameters.deciding(self.notebook, {**usual, **self.parameters}, **facts)
        built = {"width": timed_network(record)[1]} if record.get("what") == "step_time" else {}
        had = parameters.deciding(self.notebook, {
            **usual, **_told(record), **record["parameters"], **seed, **built
        }, **facts)
        return all(had[name] == value for name, value in asked.items())

    def evaluated(self, record):
        """Whether a record of this run holds the evaluation that the cell asks for; True where it
        asks for none."""
        if not self.then:
            return True
        usual, facts = defaults(self.then), {"test": record["dataset"]["test"]}
        asked = parameters.deciding(self.then, {**usual, **self.then_parameters}, **facts)
        usual = parameters.deciding(self.then, usual, **facts)
        return any(e["what"] == self.then and {**usual, **e["parameters"]}.items() >= asked.items()
                   for e in record.get("evaluations", []))


def _told(record):
    """Parameters as the other parts of a record tell them: not every record has all of them among
    its parameters."""
    recipe, tried = record.get("recipe", {}), record.get("episodes", [])
    found = {name: record[name]["name"] for name in CATALOGUES if name in record}
    found |= {"width": record["model"]["width"], "settings": record["method"]["settings"]
              } if "method" in record else {}
    found |= {
        name: recipe[name]
        for name in ("epochs", "batch", "lr", "momentum", "nesterov", "weight_decay", "padding",
                     "flip", "precision", "channels_last")
        if name in recipe
    }
    if tried:
        found |= {**{name: tried[0][name] for name in ("ways", "queries", "episodes")},
                  "shots": list(dict.fromkeys(e["shots"] for e in tried)),
                  "distances": list(dict.fromkeys(e["distance"] for e in tried))}
    return found


@functools.cache
def defaults(notebook):
    """The parameters of an experiment notebook and their default values, from its cell of
    parameters."""
    file = EXPERIMENTS / f"{notebook}.ipynb"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.ipynb")))
        raise ValueError(f"there is no experiment {notebook!r}; known: "
                         f"{known or 'none outside a checkout'}")
    cells = json.loads(file.read_text())["cells"]
    source = next("".join(c["source"])
                  for c in cells
                  if "parameters" in c["metadata"].get("tags", []))
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source).body}


def read(file, size):
    """The plan in a YAML file: its title and its cells at a size. ValueError says what is wrong and
    where.

    Each cell runs with every seed of the size, one that names a `seed` with that one.
    """
    plan = _yaml(file)
    known = {"title", "notebook", "then", "expect", "cells", "sizes"}
    _known(plan, known, {"title", "notebook", "cells"}, file)
    _checked_expect(plan.get("expect"), file)
    if size not in sizes(file):
        raise ValueError(f"unknown size {size!r}; known: {', '.join(sizes(file))}")
    how = {**sizes(file)[size], **plan.get("sizes", {}).get(size, {})}
    _known(how, {"seeds", "parameters", "only", "instead", "then"}, {"seeds", "parameters"},
           f"size {size}")
    _known(how["parameters"], set(defaults(plan["notebook"])), set(), f"size {size}")
    then, asked = plan.get("then"), how.get("then", {}) if "then" in plan else {}
    if then:
        _known(asked, set(defaults(then)), set(), f"size {size}, then")
    cells = [
        RunSpec(plan["notebook"], {**row, **how["parameters"], "seed": seed}, then, asked)
        for row in _rows(plan, how, file)
        for seed in ([row["seed"]] if "seed" in row else how["seeds"])
    ]
    for cell in cells:
        _checked(cell, file)
    return plan["title"], list({cell.name: cell for cell in cells}.values())


def sizes(file):
    """The sizes that a plan can be read at, from sizes.yml beside it or else from the book's."""
    beside = Path(file).with_name("sizes.yml")
    return _yaml(beside if beside.exists() else PLANS / "sizes.yml")


def expected(file):
    """Which numbers the runs of a plan should come to, its entry `expect`; None without it.

    A dict of `table` and `row` of the paper and `labels` in that row, as `scorecard.cells` names
    them; or of `labels` alone, which then are methods that the paper has no numbers for.
    """
    return _yaml(file).get("expect")


def _checked_expect(expect, file):
    if expect is None:
        return
    where, table = f"{file}, expect", isinstance(expect, dict) and "table" in expect
    _known(expect, {"table", "row", "labels"}, {"labels", *(("row",) if table else ())}, where)
    if table and expect["table"] not in range(1, 8):
        raise ValueError(f"{where}: table is {expect['table']!r}; the paper has Tables 1 to 7")
    if not isinstance(expect["labels"], list) or not expect["labels"]:
        raise ValueError(f"{where}: labels is {expect['labels']!r}; it must be a list of names")


def _checked(cell, file):
    """ValueError where a cell has a parameter of the wrong type, or one that the sweep itself
    gives."""
    asked = {**cell.parameters, **cell.then_parameters}
    own = next((name for name in asked if name in parameters.ASIDE), None)
    if own:
        raise ValueError(f"{file}: {own} is not for a plan: " +
                         ("write seed: [0, 1], so that each seed is a cell" if own ==
                          "more_seeds" else "the sweep gives it"))
    try:
        parameters.checked(
            **{name: value
               for name, value in asked.items()
               if name in parameters.KINDS})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def table_rows(file):
    """The rows of a table, from its plan: (label, data set) -> the parameters of the run that
    measures it."""
    return {(label, row["dataset"]): row
            for label, row in _combinations(_yaml(file), file)
            if label}


def _rows(plan, how, file):
    """The combinations of the plan that are in a size."""
    for _, row in _combinations(plan, file):
        if all(row.get(k) == v for k, v in how.get("only", {}).items()):
            yield {**row, **how.get("instead", {})}


def _combinations(plan, file):
    """Every combination of the lists in the plan's cells, each with the label of its row in a table
    ("" without `rows`), with names checked; `all` is the whole catalogue."""
    allowed = defaults(plan["notebook"])
    for block in plan["cells"]:
        rows = block.pop("rows", None) if isinstance(block, dict) and "options" in allowed else None
        given = {"method", "options"} if rows else set()  # by the rows
        _known(block, {*allowed, "rows"} - given, (CATALOGUES.keys() & allowed) - given, file)
        choices = {
            k: names(CATALOGUES[k])
            if v == "all" and k in CATALOGUES else v if isinstance(v, list) else [v]
            for k, v in block.items()
        }
        for values in itertools.product(*choices.values()):
            row = dict(zip(choices, values, strict=True))
            for label, found in _labelled(row, rows, file) if rows else [("", row)]:
                for k, package in CATALOGUES.items():
                    if k in found and found[k] not in names(package):
                        raise ValueError(f"{file}: unknown {k} {found[k]!r}; known: "
                                         f"{', '.join(names(package))}")
                yield label, found


def _labelled(row, rows, file):
    """A row of parameters with the method and options of each label; an option that is tuned so for
    this data set and network is left out."""
    if not isinstance(rows, dict) or not parameters.KINDS["sides"].fits([*rows.values()]):
        raise ValueError(f"{file}: rows is {rows!r}; it must map each label to a method and its "
                         "options")
    for label, (method, options) in rows.items():
        known = method in names(methods)
        place = (row.get("settings", "paper"), row["dataset"], row["model"])
        tuned = settings(methods, method, *place) if known else {}
        options = {k: v for k, v in options.items() if tuned.get(k) != v}
        yield label, {**row, "method": method, **({"options": options} if options else {})}


def _known(found, allowed, needed, where):
    if not isinstance(found, dict):
        raise ValueError(f"{where}: a mapping of names and values is expected, not {found!r}")
    wrong, missing = sorted(set(found) - allowed), sorted(needed - set(found))
    if wrong:
        raise ValueError(
            f"{where}: unknown entry {wrong[0]!r}; known: {', '.join(sorted(allowed))}")
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
        return yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
