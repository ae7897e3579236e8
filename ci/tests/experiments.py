"""How tests run an experiment notebook: through papermill, or its cells in this process, without a
kernel."""

import contextlib
import sys

import nbformat
import papermill
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from sagelib.bench.paths import EXPERIMENTS


@contextlib.contextmanager
def notebook_shell():
    """IPython in this process, empty, for the cells of a notebook. Its module is `__main__` only
    meanwhile: torch.multiprocessing's children start from the real one."""
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.reset(new_session=False)
    sys.modules["__main__"] = shell.user_module
    try:
        yield shell
    finally:
        sys.modules["__main__"] = main


def execute(name, folder, parameters, kernel=False):
    """Run a notebook in that folder; an error of a cell is raised."""
    notebook = EXPERIMENTS / f"{name}.ipynb"
    if kernel:
        out = folder / "out.ipynb"
        papermill.execute_notebook(notebook, out, cwd=folder, progress_bar=False,
                                   parameters=parameters)
        return
    with notebook_shell() as shell, contextlib.chdir(folder):
        for cell in nbformat.read(notebook, 4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
                if "parameters" in cell.metadata.get("tags", []):
                    assert parameters.keys() <= shell.user_ns.keys()
                    shell.push(parameters)
