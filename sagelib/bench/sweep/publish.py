"""What an attempt leaves for readers: its record, and its executed notebook beside it."""

import json
from pathlib import Path

from ... import files
from .. import records


def keep_notebook(file, place):
    """Put the executed notebook beside the record at `place`, under its name, for readers
    elsewhere: without this machine's folders and without images of the data, which is not ours to
    publish. One that is there stands, and one that did not run to its end is left where it is."""
    import nbformat

    target = Path(place).with_suffix(".ipynb")
    if target.exists() or not file.exists():
        return
    asked = json.loads((file.parent / "attempt.json").read_text())
    folders = {
        str(file.parent): "ATTEMPT",
        asked["results"]: "RESULTS",
        asked["out"]: "OUT",
        asked.get("root"): "DATA",
    }
    text = file.read_text()
    for folder, word in folders.items():
        text = text.replace(json.dumps(folder)[1:-1], word) if folder else text
    notebook = nbformat.reads(text, 4)
    if not all(
        cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source
    ):
        return
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [
                o
                for o in cell.outputs
                if o.get("name") != "stderr"
                and not ("show.grid(" in cell.source and "image/png" in o.get("data", {}))
            ]
    files.replace(target, f"{nbformat.writes(notebook)}\n")


def publish(made, results):
    """Write the record in the file `made` to its place under `results`, whole or not at all, and
    the notebook of its attempt beside it; returns the place.

    If another attempt was first, its record stands.
    """
    record = records.read(made)
    place = records.path(record, results)
    if not place.exists():
        here = next((p for p in made.parents if (p / "attempt.json").exists()), made.parent)
        keep_notebook(here / f"{_notebook(record)}.ipynb", place)
    try:
        return records.write(record, results)
    except FileExistsError:
        records.read(place)
        return place


def _notebook(record):
    return record.get("what") or ("few_shot" if record["kind"] == "few_shot" else "train")
