"""Execute notebooks through papermill, each in a copy: `python ci/run_notebooks.py [--save] [--out DIR] [NOTEBOOK …]`.

Without names, all chapters and experiments. The executed copies go to DIR (book/_build/executed); `--save` also puts
the fresh outputs back into the notebooks. Sources, tags and cell ids stay as they are.
"""
import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
import papermill

TOP = Path(__file__).resolve().parent.parent


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--save", action="store_true", help="put the outputs into the notebooks")
    options.add_argument("--out", type=Path, default=TOP / "book/_build/executed")
    options.add_argument("notebooks", nargs="*", type=Path)
    asked = options.parse_args()
    for path in asked.notebooks or sorted((TOP / "notebooks").rglob("[!.]*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            execute(path.resolve(), asked.out, asked.save)


def execute(path, out, save):
    """Run one notebook with its default parameters, in an empty folder of its own beside the copy."""
    copy = out / path.relative_to(TOP / "notebooks")
    copy.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    print(f"running {path.relative_to(TOP)} … ", end="", flush=True)
    try:
        papermill.execute_notebook(path, copy, cwd=copy.parent, progress_bar=False, log_output=False,
                                   execution_timeout=600)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"failed: {error}")
    print(f"{time.time() - start:.0f} s", flush=True)
    if save:
        put_back(path, copy)


def put_back(path, copy):
    """Copy outputs and execution counts, nothing else, into the notebook."""
    notebook, ran = nbformat.read(path, 4), nbformat.read(copy, 4)
    done = {cell.id: cell for cell in ran.cells if "injected-parameters" not in cell.metadata.get("tags", [])}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [without_noise(o) for o in done[cell.id].outputs if o.get("name") != "stderr"]
            cell.execution_count = done[cell.id].execution_count
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def without_noise(output):
    output.pop("transient", None)
    return output


if __name__ == "__main__":
    main()
