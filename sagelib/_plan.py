"""A plan of runs, from YAML: which notebook, with which parameters, at which size -> its cells."""
import ast
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from . import datasets, methods, models
from .catalog import names

EXPERIMENTS = Path(__file__).parents[1] / "notebooks/experiments"
PLANS = Path(__file__).parents[1] / "book/plans"
CATALOGUES = {"dataset": datasets, "model": models, "method": methods}
ASIDE = ("device", "more_seeds")  # what a record's parameters hold that does not decide its result


@dataclass(frozen=True)
class Cell:
    """One run: the notebook (its name), the parameters that it is given, and the notebook that goes on with its
    network, or None."""

    notebook: str
    parameters: dict
    then: str | None = None

    @property
    def name(self):
        """What it is, in a name for files: the main parameters, and eight digits for all of them."""
        p = self.parameters
        digits = hashlib.sha256(json.dumps([self.notebook, p], sort_keys=True).encode()).hexdigest()[:8]
        main = [p[k] for k in CATALOGUES if k in p] if "method" in p else [self.notebook, p["model"]]
        return "-".join([*main, f"seed{p['seed']}", digits])

    def record(self, found):
        """The record of this very run among those `found`, or None."""
        asked = {**defaults(self.notebook), **self.parameters}
        for record in found:
            given = {**record["parameters"], **({"seed": record["seed"]} if "seed" in record else {})}
            if all(asked[k] == v for k, v in given.items() if k not in ASIDE and k in asked):
                return record
        return None


def defaults(notebook):
    """The parameters of an experiment notebook and their default values, from its cell of parameters."""
    file = EXPERIMENTS / f"{notebook}.ipynb"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.ipynb")))
        raise ValueError(f"there is no experiment {notebook!r}; known: {known or 'none outside a checkout'}")
    cells = json.loads(file.read_text())["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source).body}


def read(file, size):
    """The plan in a YAML file: its title and its cells at a size. ValueError says what is wrong and where.

    Each cell runs with every seed of the size, one that names a `seed` with that one.
    """
    plan = _yaml(file)
    _known(plan, {"title", "notebook", "then", "cells", "sizes"}, {"title", "notebook", "cells"}, file)
    beside = Path(file).with_name("sizes.yml")
    sizes = _yaml(beside if beside.exists() else PLANS / "sizes.yml")
    if size not in sizes:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(sizes)}")
    how = {**sizes[size], **plan.get("sizes", {}).get(size, {})}
    _known(how, {"seeds", "parameters", "only", "instead"}, {"seeds", "parameters"}, f"size {size}")
    _known(how["parameters"], set(defaults(plan["notebook"])), set(), f"size {size}")
    if "then" in plan:
        defaults(plan["then"])
    cells = [Cell(plan["notebook"], {**row, **how["parameters"], "seed": seed}, plan.get("then"))
             for row in _rows(plan, how, file) for seed in ([row["seed"]] if "seed" in row else how["seeds"])]
    return plan["title"], list({cell.name: cell for cell in cells}.values())


def _rows(plan, how, file):
    """Every combination of the lists in the plan's cells, with names checked; `all` is the whole catalogue."""
    allowed = defaults(plan["notebook"])
    for block in plan["cells"]:
        _known(block, set(allowed), CATALOGUES.keys() & allowed, file)
        choices = {k: names(CATALOGUES[k]) if v == "all" and k in CATALOGUES else v if isinstance(v, list) else [v]
                   for k, v in block.items()}
        for values in itertools.product(*choices.values()):
            row = dict(zip(choices, values, strict=True))
            for k, package in CATALOGUES.items():
                if k in row and row[k] not in names(package):
                    raise ValueError(f"{file}: unknown {k} {row[k]!r}; known: {', '.join(names(package))}")
            if all(row.get(k) == v for k, v in how.get("only", {}).items()):
                yield {**row, **how.get("instead", {})}


def _known(found, allowed, needed, where):
    if not isinstance(found, dict):
        raise ValueError(f"{where}: a mapping of names and values is expected, not {found!r}")
    wrong, missing = sorted(set(found) - allowed), sorted(needed - set(found))
    if wrong:
        raise ValueError(f"{where}: unknown entry {wrong[0]!r}; known: {', '.join(sorted(allowed))}")
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
