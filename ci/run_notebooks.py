"""Execute notebooks through papermill: `python ci/run_notebooks.py [--save | --into DIR] [NOTEBOOK
…]`.

Without names, all chapters and experiments, with their default parameters, each in an empty folder
of its own. The fresh outputs go into the copies of the notebooks under DIR, or with `--save` into
the notebooks; nothing else changes.
"""
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from sagelib import files

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    where = options.add_mutually_exclusive_group(required=True)
    where.add_argument("--save", dest="into", action="store_const", const=NOTEBOOKS)
    where.add_argument("--into", type=Path)
    options.add_argument("notebooks", nargs="*", type=Path)
    asked = options.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in ci/test: sums on more threads differ
    for path in asked.notebooks or sorted(NOTEBOOKS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            execute(path.resolve(), asked.into.resolve())


def execute(path, into):
    """Run one notebook and put its outputs into the copy under `into`; ends the program where a
    cell fails."""
    name, start = path.relative_to(NOTEBOOKS), time.time()
    print(f"running {name} … ", end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ran = Path(folder) / "ran.ipynb"
        try:
            papermill.execute_notebook(path, ran, cwd=folder, progress_bar=False,
                                       execution_timeout=600)
        except papermill.PapermillExecutionError as error:
            sys.exit(f"failed: {error}")
        put_back(into / name, nbformat.read(ran, 4))
    print(f"{time.time() - start:.0f} s", flush=True)


def put_back(path, ran):
    """Copy outputs and execution counts, nothing else, into the notebook at `path`."""
    notebook = nbformat.read(path, 4)
    done = {
        cell.id: cell
        for cell in ran.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                without_noise(o) for o in done[cell.id].outputs if o.get("name") != "stderr"
            ]
            cell.execution_count = done[cell.id].execution_count
    files.replace(path, f"{nbformat.writes(notebook)}\n")


def without_noise(output):
    output.pop("transient", None)
    return output


if __name__ == "__main__":
    main()
