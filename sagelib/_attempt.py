"""One attempt at one cell of a plan, in a folder of its own; its result is published at the end, in one step.

`python -m sagelib._attempt FOLDER` does what FOLDER/attempt.json asks for: it runs the notebook through papermill,
publishes the record, and runs what is to follow on that network. It ends with 0 when all of that is there, with AGAIN
when the kernel did not come up, and with 1 when the notebook failed; then FOLDER/error.txt says why in a line. It stops
when the process that started it is gone, so that no sweep leaves work behind.
"""
import json
import os
import re
import shutil
import sys
import threading
import time
import uuid
from pathlib import Path

from . import records
from ._plan import EXPERIMENTS, Cell, defaults

AGAIN = 75  # what sysexits.h calls a temporary failure


def prepare(cell, settings, out):
    """A new folder under OUT/attempts/<cell>/ that says what is to be done; returns it.

    settings: what is the same for all cells: root, device, results (where records are published).
    """
    mine = Path(out).resolve() / "attempts" / cell.name
    mine.mkdir(parents=True, exist_ok=True)
    folder = mine / f"{1 + sum(p.is_dir() for p in mine.iterdir()):02d}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    asked = {"notebook": cell.notebook, "parameters": cell.parameters, "then": cell.then, **settings,
             "out": str(Path(out).resolve()), "results": str(Path(settings["results"]).resolve())}
    (folder / "attempt.json").write_text(json.dumps(asked, indent=1) + "\n")
    return folder


def attempt(folder):
    """Do what FOLDER/attempt.json asks for; returns the published record's path."""
    folder = Path(folder)
    asked = json.loads((folder / "attempt.json").read_text())
    cell, results = Cell(asked["notebook"], asked["parameters"], asked["then"]), Path(asked["results"])
    common = {"networks": f"{asked['out']}/networks", **{k: asked[k] for k in ("root", "device") if asked.get(k)}}
    if found(cell, results) is None:  # an earlier attempt may have been killed between its record and its publication
        for earlier in sorted(folder.parent.glob("*/results/**/*.json")):
            publish(earlier, results)
    published = found(cell, results)
    if published is None:
        execute(cell.notebook, folder, {**cell.parameters, **common, "results": str(folder / "results"),
                                        "checkpoints": f"{asked['out']}/checkpoints", "progress": False})
        made, = (folder / "results").rglob("*.json")
        keep_notebook(folder / f"{cell.notebook}.ipynb", records.path(records.read(made), results), asked)
        published = publish(made, results)
    if cell.then and records.evaluation(records.read(published), cell.then) is None:
        execute(cell.then, folder, {**common, "record": str(published)})
        keep_notebook(folder / f"{cell.then}.ipynb", published.with_stem(f"{published.stem}-{cell.then}"), asked)
    return published


def found(cell, results):
    """The file of the cell's record under `results`, or None."""
    results = Path(results)
    if cell.notebook in ("train", "few_shot"):
        kind = "few_shot" if cell.notebook == "few_shot" else "record"
        every = records.every(results, kind) if results.exists() else []
    else:
        every = records.timings(results, cell.notebook)
    record = cell.record(every)
    return record and records.path(record, results)


def done(cell, results):
    """Whether nothing is left to do for a cell."""
    file = found(cell, results)
    return file is not None and (not cell.then or records.evaluation(records.read(file), cell.then) is not None)


def execute(notebook, folder, parameters):
    """Run an experiment through papermill: FOLDER/<notebook>.ipynb is what came of it."""
    import papermill

    papermill.execute_notebook(EXPERIMENTS / f"{notebook}.ipynb", folder / f"{notebook}.ipynb", cwd=str(folder),
                               parameters={k: v for k, v in parameters.items() if k in defaults(notebook)},
                               progress_bar=False)


def keep_notebook(file, place, asked):
    """Put the executed notebook beside the record at `place`, under its name, for readers elsewhere: without this
    machine's folders and without pictures of the data, which is not ours to publish. One that is there stands."""
    import nbformat

    target = Path(place).with_suffix(".ipynb")
    if target.exists():
        return
    folders = {str(file.parent): "ATTEMPT", asked["results"]: "RESULTS", asked["out"]: "OUT", asked.get("root"): "DATA"}
    text = file.read_text()
    for folder, word in folders.items():
        text = text.replace(json.dumps(folder)[1:-1], word) if folder else text
    notebook = nbformat.reads(text, 4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"
                            and not ("show.grid(" in cell.source and "image/png" in o.get("data", {}))]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    nbformat.write(notebook, part)
    os.replace(part, target)


def publish(made, results):
    """Link the record in the file `made` to its place under `results`, whole or not at all; returns the place.

    If another attempt was first, its record stands.
    """
    record = records.read(made)
    place = records.path(record, results)
    try:
        return records.write(record, results)
    except FileExistsError:
        records.read(place)
        return place


def main(folder):
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


def short(error):
    """The last line of an error that says something, without the colours of a terminal."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _never_started(folder, error):
    """Whether the kernel failed, not a cell of the notebook."""
    return type(error).__name__ in ("DeadKernelError", "RuntimeError") and not any(folder.glob("results/**/*.json"))


def _end_with(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
