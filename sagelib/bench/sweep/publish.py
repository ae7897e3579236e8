"""What an attempt leaves for readers: its record, and its executed notebook beside it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ... import files
from .. import records


def keep_notebook(file: Path, place: str | Path) -> None:
    """Put the executed notebook beside the record at `place`, under its name, for readers.

    It is without this machine's folders and without images of the data, which are not ours to
    publish. One that is there already stays, and one that did not run to its end is not published.
    """
    import nbformat

    target = Path(place).with_suffix(".ipynb")
    if target.exists() or not file.exists():
        return
    asked = json.loads((file.parent / "attempt.json").read_text())
    folders = {str(file.parent): "ATTEMPT", asked["results"]: "RESULTS", asked["out"]: "OUT",
               asked.get("root"): "DATA"}
    text = file.read_text()
    for folder, word in folders.items():
        text = text.replace(json.dumps(folder)[1:-1], word) if folder else text
    notebook: Any = nbformat.reads(text, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not all(cell.execution_count for cell in code if cell.source):
        return
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    for cell in code:
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        if "show.grid(" in cell.source:
            cell.outputs = [out for out in cell.outputs if "image/png" not in out.get("data", {})]
    files.replace(target, f"{nbformat.writes(notebook)}\n")


def publish(made: Path, results: str | Path) -> Path:
    """Publish the record in the file `made`, and its notebook; the record's place under `results`.

    The record is written whole or not at all. If another attempt was first, its record stays.
    """
    record = records.read(made)
    place = records.path(record, results)
    if not place.exists():
        here = next((p for p in made.parents if (p / "attempt.json").exists()), made.parent)
        keep_notebook(here / f"{records.notebook_of(record)}.ipynb", place)
    try:
        return records.write(record, results)
    except FileExistsError:
        records.read(place)  # a damaged one is an error, not a published record
        return place
