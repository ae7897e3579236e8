"""One attempt at one cell of a plan, in its own folder; its result is published in one step.

`python -m sagelib.bench.sweep.worker FOLDER` does what FOLDER/attempt.json asks for: it runs the
notebook through papermill, publishes the record, and runs what is to follow on that network. It
ends with 0 when all of that is there, with AGAIN when the kernel did not come up, and with 1 when
the notebook failed; then FOLDER/error.txt says why in a line. It stops when the process that
started it is gone, so that no sweep leaves work behind.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import records
from ..plans import EXPERIMENTS, RunSpec, defaults
from .publish import keep_notebook, publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..schema import Record

    Settings = Mapping[str, str]  # what is the same for all cells: root, device, results

AGAIN = 75  # what sysexits.h calls a temporary failure
TRAIN, EVALUATE = "is trained", "its network is evaluated"
RETRAIN = "trains again: its weights are not here"


def prepare(cell: RunSpec, settings: Settings, out: str | Path) -> Path:
    """A new folder under OUT/attempts/<cell>/ that says what is to be done."""
    mine = attempts(cell, out)
    mine.mkdir(parents=True, exist_ok=True)
    folder = mine / f"{1 + sum(p.is_dir() for p in mine.iterdir()):02d}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    places = {"out": str(Path(out).resolve()), "results": str(Path(settings["results"]).resolve())}
    asked = {"cell": asdict(cell), **settings, **places}
    (folder / "attempt.json").write_text(json.dumps(asked, indent=1) + "\n")
    return folder


def attempt(folder: str | Path) -> Path:
    """Do what FOLDER/attempt.json asks for; the path of the published record.

    Where an evaluation needs the network of a record and its weights are not here, the run is
    trained again. The record stays as it is, and the evaluation says if it is about a network with
    another curve (`weights.retrained`).
    """
    folder = Path(folder)
    asked = json.loads((folder / "attempt.json").read_text())
    cell, results, out = RunSpec(**asked["cell"]), Path(asked["results"]), asked["out"]
    what, record = _left(cell, records.of_notebook(cell.notebook, results), out)
    if what == TRAIN and recover(cell, out, results):
        what, record = _left(cell, records.of_notebook(cell.notebook, results), out)
    if record is None:
        record = records.read(publish(_train(cell, folder, asked), results))
    elif what == RETRAIN:
        _train(cell, folder, asked, record)
    published = records.path(record, results)
    if not cell.evaluated(record):
        _evaluate(cell, folder, asked, published, _weights(record, out))
    return published


def _train(cell: RunSpec, folder: Path, asked: dict[str, Any],
           record: Record | None = None) -> Path:
    """Run the cell's notebook; the file of its record. `record`: that of a run trained again."""
    places = {"results": str(folder / "results"), "checkpoints": f"{asked['out']}/checkpoints",
              "networks": _networks(asked["out"], record)}
    execute(cell.notebook, folder,
            {**cell.parameters, **_common(asked), **places, "progress": False})
    made, = (folder / "results").rglob("*.json")
    return made


def _evaluate(cell: RunSpec, folder: Path, asked: dict[str, Any], published: Path,
              weights: Path | None) -> None:
    """Evaluate the network in the file `weights` by a notebook, kept beside the record.

    The notebook adds the evaluation to the record at `published`.
    """
    assert cell.then
    places = {"record": str(published), "networks": _networks(asked["out"]),
              "weights_file": str(weights)}
    execute(cell.then, folder, {**cell.then_parameters, **_common(asked), **places})
    evaluated = folder / f"{cell.then}.ipynb"
    keep_notebook(evaluated, published.with_stem(f"{published.stem}-{cell.then}"))


def _common(asked):
    return {name: asked[name] for name in ("root", "device") if asked.get(name)}


def remaining(cells: Sequence[RunSpec], results: str | Path,
              out: str | Path) -> list[tuple[RunSpec, str]]:
    """The cells that are not done, each with what is left to do: TRAIN, RETRAIN or EVALUATE."""
    notebooks = {cell.notebook for cell in cells}
    every = {notebook: records.of_notebook(notebook, results) for notebook in notebooks}
    found = [(cell, _left(cell, every[cell.notebook], out)[0]) for cell in cells]
    return [(cell, what) for cell, what in found if what]


def _left(cell: RunSpec, every: Iterable[Record],
          out: str | Path) -> tuple[str | None, Record | None]:
    """What is left to do for a cell, or None, and the record of its run among `every`, or None.

    Of several records the one that is evaluated as asked comes first, then one whose weights are
    here.
    """
    def ready(record):
        return cell.evaluated(record), _weights(record, out) is not None

    record = max(filter(cell.matches, every), key=ready, default=None)
    if record is None:
        return TRAIN, None
    evaluated, weights = ready(record)
    if evaluated:
        return None, record
    return EVALUATE if weights else RETRAIN, record


def attempts(cell: RunSpec, out: str | Path) -> Path:
    """The folder of the attempts at a cell."""
    return Path(out).resolve() / "attempts" / cell.name


def _networks(out: str | Path, record: Record | None = None) -> str:
    """The folder of networks; those of a record that are trained again have one inside.

    The library may have got options since, and then they have another run's name.
    """
    return f"{Path(out).resolve()}/networks" + (f"/again-{record['run']}" if record else "")


def _weights(record: Record, out: str | Path) -> Path | None:
    """The file of a record's network, of the first training or a later one, or None."""
    first = records.path(record, _networks(out)).with_suffix(".pt")
    return first if first.exists() else next(iter(Path(_networks(out, record)).rglob("*.pt")), None)


def unpublished(cell: RunSpec, out: str | Path) -> list[Path]:
    """Records of a cell, as files, of earlier attempts that were killed before they published."""
    found = []
    for made in sorted(attempts(cell, out).glob("*/results/**/*.json")):
        try:
            if cell.matches(records.read(made)):
                found.append(made)
        except ValueError:  # damaged: the run is done again
            continue
    return found


def recover(cell: RunSpec, out: str | Path, results: str | Path) -> list[Path]:
    """Publish what an earlier attempt at a cell without a record finished; the places."""
    return [publish(made, results) for made in unpublished(cell, out)]


def execute(notebook: str, folder: Path, parameters: Mapping[str, Any]) -> None:
    """Run an experiment through papermill: FOLDER/<notebook>.ipynb is what came of it."""
    import papermill

    known = {k: v for k, v in parameters.items() if k in defaults(notebook)}
    papermill.execute_notebook(EXPERIMENTS / f"{notebook}.ipynb", folder / f"{notebook}.ipynb",
                               cwd=str(folder), parameters=known, progress_bar=False)


def main(folder: str | Path) -> int:
    """Run the attempt; the exit status says how it ended, error.txt why."""
    folder = Path(folder)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        attempt(folder)
    except Exception as error:  # whatever went wrong belongs to this cell; the others go on
        (folder / "error.txt").write_text(short(error) + "\n")
        return AGAIN if _never_started(folder, error) else 1
    shutil.rmtree(folder / "results", ignore_errors=True)  # published
    return 0


def short(error: Exception) -> str:
    """The last line of an error that says something, without the colours of a terminal."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _never_started(folder, error):
    """Whether the kernel failed, not a cell of the notebook."""
    kernel = type(error).__name__ in ("DeadKernelError", "RuntimeError")
    return kernel and not any(folder.glob("results/**/*.json"))


def _end_with(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
