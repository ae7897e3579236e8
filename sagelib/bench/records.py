"""One run, one JSON record: what was run, what came out, on what.

A record is written whole or not at all, and one that is there is never replaced.
`record.schema.json` beside this file says what a record holds. JSON has no NaN: a test loss that is
not finite is null, any other such number is refused.
"""
from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..train import best_epoch
from .paper_recipe import recipe_kind
from .paths import MEASURED as MEASURED
from .paths import REPORTED
from .paths import RESULTS as RESULTS
from .provenance import commit, hardware, versions
from .schema import Parameters, Record, Row, as_json, schema_of, validate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    import torch
    from jaxtyping import Bool

    Curve = Sequence[Record]  # an entry for each epoch

FOLDERS = {"record": "", "timing": "timings", "few_shot": "few_shot"}  # of each schema's records


def make(*, dataset: Record, model: Record, method: Record, recipe: Record, seed: int, curve: Curve,
         parameters: Parameters, device: torch.device | str = "cpu", together: int = 1,
         correct: Bool[np.ndarray, " n"] | Bool[torch.Tensor, " n"] | None = None,
         train_accuracy: float | None = None) -> Record:
    """The record of a finished run from its parts and its curve; checked against the schema.

    together: how many runs shared the machine, and so the seconds. correct: which test images the
    final network classifies right; ValueError if their share is not the final accuracy.
    train_accuracy: percent of the training images, neither cropped nor mixed, that it gets right.
    """
    curve = [{**e, "test_loss": e["test_loss"] if math.isfinite(e["test_loss"]) else None}
             if "test_loss" in e else e for e in curve]
    asked = {"dataset": dataset, "model": model, "method": method, "recipe": recipe, "seed": seed}
    kind = recipe_kind(dataset, model, method, recipe)
    seconds = {**_seconds(curve), "together": together}
    results = summary(curve, correct)
    if train_accuracy is not None:
        results["final"]["train_accuracy"] = train_accuracy
    return validate({"schema": 1, "run": run_id(**asked), **asked, "kind": kind, "curve": curve,
                     **results, "seconds": seconds, **_stamp(parameters, device)})


def make_few_shot(*, dataset: Record, model: Record, method: Record, recipe: Record, seed: int,
                  exam: Record, curve: Curve, episodes: Sequence[Record], parameters: Parameters,
                  device: torch.device | str = "cpu") -> Record:
    """The record of a network trained on base classes, evaluated on episodes of new ones; checked.

    curve: with val_accuracy (percent, on the `exam`: episodes of the validation classes); the
    network of the best epoch there is the one evaluated, of the lowest `exam["by"]` where the exam
    names a loss. episodes: the results on the test classes.
    """
    asked = {"dataset": dataset, "model": model, "method": method, "recipe": recipe, "seed": seed}
    by = exam.get("by", "val_accuracy")
    best = best_epoch(curve, by)
    chosen = {"epoch": best["epoch"], "val_accuracy": best["val_accuracy"], by: best[by],
              "exam": exam}
    return validate({"schema": 1, "run": run_id(**asked, exam=exam), "kind": "few_shot", **asked,
                     "curve": curve, "chosen": chosen, "episodes": episodes,
                     "seconds": _seconds(curve), **_stamp(parameters, device)})


def make_timing(*, what: str, rows: Sequence[Row], parameters: Parameters,
                device: torch.device | str = "cpu") -> Record:
    """The record of a benchmark: what was timed, the measured rows, and where; checked."""
    stamp = _stamp(parameters, device)
    run = run_id(what=what, parameters=parameters, finished=stamp["finished"])
    return validate({"schema": 1, "run": run, "kind": "timing", "what": what, "rows": rows,
                     **stamp})


def _seconds(curve):
    return {"training": sum(e["seconds"] for e in curve), "epoch": steady_epoch(curve)}


def _stamp(parameters, device):
    return {"hardware": hardware(device), "versions": versions(), "commit": commit(),
            "parameters": parameters, "finished": datetime.now(UTC).isoformat(timespec="seconds")}


def run_id(**asked: Any) -> str:
    """Eight hexadecimal digits that stand for everything that was asked for."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def summary(curve: Curve, correct: Bool[np.ndarray, " n"] | Bool[torch.Tensor, " n"] | None = None
            ) -> Record:
    """Final accuracy, median of the last ten epochs, and the best on the test set, kept apart.

    Epochs after which the network was not evaluated do not count.
    """
    tested = [e for e in curve if "test_accuracy" in e]
    last10 = [e["test_accuracy"] for e in curve[-10:] if "test_accuracy" in e]
    best = max(tested, key=lambda e: e["test_accuracy"])  # the first of equals
    final = {"accuracy": curve[-1]["test_accuracy"], "loss": curve[-1]["test_loss"]}
    if correct is not None:
        packed = np.packbits(np.asarray(correct, bool)).tobytes()
        final["correct"] = base64.b64encode(packed).decode()
    return {"final": final, "median_last10": statistics.median(last10),
            "best_on_test": {"accuracy": best["test_accuracy"], "epoch": best["epoch"]}}


def steady_epoch(curve: Curve) -> float:
    """Median seconds of an epoch, without the first where there are more: that one warms up."""
    return statistics.median(e["seconds"] for e in (curve[1:] or curve))


def path(record: Record, root: str | Path) -> Path:
    """Where a record belongs: ROOT/<dataset>/<model>/<method>-seed<seed>-<run>.json.

    Timings belong in ROOT/timings, few-shot records under ROOT/few_shot.
    """
    root = Path(root) / FOLDERS[schema_of(record)]
    if "what" in record:
        return root / f"{record['what']}-{record['run']}.json"
    name = f"{record['method']['name']}-seed{record['seed']}-{record['run']}.json"
    return root / record["dataset"]["name"] / record["model"]["name"] / name


def write(record: Record, root: str | Path) -> Path:
    """Validate and write a record; its path. FileExistsError if one is there."""
    text, target = as_json(record), path(record, root)
    try:
        files.create(target, text)
    except FileExistsError:
        raise FileExistsError(f"{target} is there already; a result is never replaced: move it "
                              "away, or write to another folder") from None
    return target


def add_evaluation(file: str | Path, *, what: str, results: Record, parameters: Parameters,
                   device: torch.device | str = "cpu", network: Record | None = None) -> Record:
    """The record in `file`, to which this adds an evaluation of the trained network.

    network: what `weights.retrained` says of a network that the same run gave elsewhere. ValueError
    if there is an evaluation of that name with these parameters: a result is not replaced. Two
    processes may add at once.
    """
    file = Path(file)
    with files.locked(file.parent):
        record = _parsed(file)
        done = record.get("evaluations", [])
        if any(e["what"] == what and e["parameters"] == parameters for e in done):
            raise ValueError(f"{file} has the evaluation {what!r} with these parameters; a result "
                             "is never replaced")
        added = {"what": what, "results": results, **_stamp(parameters, device)}
        if network:
            added["network"] = network
        record["evaluations"] = [*done, added]
        files.replace(file, as_json(record))
    return record


def evaluation(record: Record, what: str, **parameters: Any) -> Record | None:
    """The results of the newest evaluation of that name with these parameters; None without one."""
    found = [e["results"] for e in record.get("evaluations", [])
             if e["what"] == what and parameters.items() <= e["parameters"].items()]
    return found[-1] if found else None


def read(file: str | Path) -> Record:
    """One record, checked. ValueError names the file that does not parse or is no record.

    The kind of a training run's recipe is derived again, so that one rule tells all records apart.
    """
    record = _parsed(file)
    if schema_of(record) == "record":
        record["kind"] = recipe_kind(*(record[k] for k in ("dataset", "model", "method", "recipe")))
    return record


def _parsed(file):
    try:
        return validate(json.loads(Path(file).read_text()))
    except ValueError as error:
        raise ValueError(f"{file} is no valid record: {error}") from error


def every(root: str | Path, kind: Literal["record", "few_shot"] = "record") -> list[Record]:
    """All records of runs, or of few-shot runs, under a folder, by path.

    A damaged one is an error, not a gap.
    """
    if kind not in ("record", "few_shot"):
        raise ValueError(f"kind is {kind!r}; it must be 'record' or 'few_shot'")
    found = []
    for file in sorted(Path(root).rglob("*.json")):
        top = file.relative_to(root).parts[0]
        if FOLDERS[kind] == (top if top in FOLDERS.values() else ""):
            found.append(read(file))
    return found


def timings(root: str | Path, what: str) -> list[Record]:
    """All records of one benchmark under a folder, the oldest first."""
    found = [read(file) for file in Path(root).glob(f"timings/{what}-*.json")]
    return sorted(found, key=lambda record: record["finished"])


def of_notebook(notebook: str, root: str | Path) -> list[Record]:
    """All records under a folder that runs of an experiment notebook may have left."""
    if notebook == "train":
        return every(root)
    return every(root, "few_shot") if notebook == "few_shot" else timings(root, notebook)


def notebook_of(record: Record) -> str:
    """The experiment notebook whose run left a record."""
    return record.get("what") or ("few_shot" if record["kind"] == "few_shot" else "train")


def reported(table: int | str, root: str | Path = REPORTED) -> list[Row]:
    """The rows of one of the paper's tables: numbers as floats, names as text."""
    with open(Path(root) / f"table_{table}.csv", newline="") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text
