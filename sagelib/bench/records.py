"""One run, one JSON record: what was run, what came out, on what.

A record is written whole or not at all, and one that is there is never replaced.
`record.schema.json` beside this file says what a record holds. JSON has no NaN: a test loss that is
not finite is null, any other such number is refused.
"""
import base64
import csv
import hashlib
import json
import math
import statistics
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .. import files
from .paper_recipe import recipe_kind
from .paths import MEASURED as MEASURED
from .paths import REPORTED
from .paths import RESULTS as RESULTS
from .provenance import commit, hardware, versions
from .schema import as_json, validate
from .schema import correct_images as correct_images


def make(*, dataset, model, method, recipe, seed, curve, parameters, device="cpu", together=1,
         correct=None):
    """The record of a finished run from its parts (dicts) and its curve; checked against the
    schema.

    `together`: how many runs shared the machine, and so the seconds. `correct`: which test images
    the final network classifies right, bool (N,); ValueError if their share is not the final
    accuracy.
    """
    curve = [{**e, "test_loss": e["test_loss"] if math.isfinite(e["test_loss"]) else None}
             for e in curve]
    asked = {"dataset": dataset, "model": model, "method": method, "recipe": recipe, "seed": seed}
    record = {
        "schema": 1, "run": run_id(**asked),
        **asked, "kind": recipe_kind(dataset, model, method, recipe), "curve": curve,
        **summary(curve, correct), "seconds": {
            "training": sum(e["seconds"] for e in curve), "epoch": steady_epoch(curve),
            "together": together
        }, **_stamp(parameters, device),
    }
    validate(record)
    return record


def make_few_shot(*, dataset, model, method, recipe, seed, exam, curve, episodes, parameters,
                  device="cpu"):
    """The record of a network trained on base classes and tried on episodes of new ones; checked.

    `curve`: a dict an epoch, with val_accuracy (percent, on the `exam`: episodes of the validation
    classes); the network of the best epoch there is the one tried. `episodes`: a list of results on
    the test classes.
    """
    asked = {"dataset": dataset, "model": model, "method": method, "recipe": recipe, "seed": seed}
    best = max(curve, key=lambda entry: entry["val_accuracy"])
    chosen = {"epoch": best["epoch"], "val_accuracy": best["val_accuracy"], "exam": exam}
    record = {
        "schema": 1, "run": run_id(**asked, exam=exam), "kind": "few_shot", **asked, "curve": curve,
        "chosen": chosen, "episodes": episodes,
        "seconds": {"training": sum(e["seconds"] for e in curve),
                    "epoch": steady_epoch(curve)}, **_stamp(parameters, device)
    }
    validate(record)
    return record


def make_timing(*, what, rows, parameters, device="cpu"):
    """The record of a benchmark: `what` was timed, a list of measured rows (dicts), and where;
    checked."""
    stamp = _stamp(parameters, device)
    record = {
        "schema": 1, "run": run_id(what=what, parameters=parameters, finished=stamp["finished"]),
        "kind": "timing", "what": what, "rows": rows, **stamp
    }
    validate(record)
    return record


def _stamp(parameters, device):
    return {
        "hardware": hardware(device), "versions": versions(), "commit": commit(),
        "parameters": parameters, "finished": datetime.now(UTC).isoformat(timespec="seconds")
    }


def run_id(**asked):
    """Eight hexadecimal digits that stand for everything that was asked for."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def summary(curve, correct=None):
    """Final accuracy, median of the last ten epochs, and the best on the test set, kept apart."""
    accuracy = [e["test_accuracy"] for e in curve]
    best = max(range(len(accuracy)), key=accuracy.__getitem__)
    packed = {} if correct is None else {
        "correct": base64.b64encode(np.packbits(np.asarray(correct, bool))).decode()
    }
    return {"final": {"accuracy": accuracy[-1], "loss": curve[-1]["test_loss"], **packed},
            "median_last10": statistics.median(accuracy[-10:]),
            "best_on_test": {"accuracy": accuracy[best], "epoch": curve[best]["epoch"]}}


def steady_epoch(curve):
    """Median seconds of an epoch, without the first where there are more: that one warms up."""
    return statistics.median(e["seconds"] for e in (curve[1:] or curve))


def path(record, root):
    """Where a record belongs: ROOT/<dataset>/<model>/<method>-seed<seed>-<run>.json; timings in
    ROOT/timings, few-shot records under ROOT/few_shot."""
    if record.get("kind") == "timing":
        return Path(root) / "timings" / f"{record['what']}-{record['run']}.json"
    name = f"{record['method']['name']}-seed{record['seed']}-{record['run']}.json"
    root = Path(root) / "few_shot" if record.get("kind") == "few_shot" else Path(root)
    return root / record["dataset"]["name"] / record["model"]["name"] / name


def write(record, root):
    """Validate and write a record, returns its path. FileExistsError if there is one: results are
    not replaced."""
    text, target = as_json(record), path(record, root)
    try:
        files.create(target, text)
    except FileExistsError:
        raise FileExistsError(f"{target} is there already; a result is never replaced: move it "
                              "away, or write to another folder") from None
    return target


def add_evaluation(file, *, what, results, parameters, device="cpu", network=None):
    """Add an evaluation of the trained network, a dict of results, to its record in `file`; returns
    the record.

    `network`: what `weights.retrained` says of a network that the same run gave elsewhere.
    ValueError if there is an evaluation of that name with these parameters: a result is not
    replaced. Two processes may add at once.
    """
    file = Path(file)
    with files.locked(file.parent):
        record = _parsed(file)
        done = record.get("evaluations", [])
        if any(e["what"] == what and e["parameters"] == parameters for e in done):
            raise ValueError(f"{file} has the evaluation {what!r} with these parameters; a result "
                             "is never replaced")
        record["evaluations"] = [
            *done, {
                "what": what, "results": results, **_stamp(parameters, device),
                **({"network": network} if network else {})
            }
        ]
        files.replace(file, as_json(record))
    return record


def evaluation(record, what, **parameters):
    """The results of the newest evaluation of that name, with these parameters, in a record; None
    without one."""
    found = [e["results"] for e in record.get("evaluations", [])
             if e["what"] == what and parameters.items() <= e["parameters"].items()]
    return found[-1] if found else None


def read(file):
    """One record, checked. ValueError names the file that does not parse or is no record.

    The kind of a training run's recipe is derived anew, so that all records are told apart by one
    rule.
    """
    record = _parsed(file)
    if record["kind"] not in ("timing", "few_shot"):
        record["kind"] = recipe_kind(*(record[k] for k in ("dataset", "model", "method", "recipe")))
    return record


def _parsed(file):
    try:
        record = json.loads(Path(file).read_text())
        validate(record)
    except ValueError as error:
        raise ValueError(f"{file} is no valid record: {error}") from error
    return record


def every(root, kind="record"):
    """All records of runs (or of kind "few_shot") under a folder, by path; a damaged one is an
    error, not a gap."""
    root = Path(root)
    own = {
        "record": lambda top: top not in ("timings", "few_shot"),
        "few_shot": lambda top: top == "few_shot"
    }[kind]
    return [
        read(file) for file in sorted(root.rglob("*.json")) if own(file.relative_to(root).parts[0])
    ]


def timings(root, what):
    """All records of one benchmark under a folder, the oldest first."""
    found = [read(file) for file in Path(root).glob(f"timings/{what}-*.json")]
    return sorted(found, key=lambda record: record["finished"])


def reported(table, root=REPORTED):
    """The rows of one of the paper's tables, as dicts: numbers as floats, names as text."""
    with open(Path(root) / f"table_{table}.csv", newline="") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
