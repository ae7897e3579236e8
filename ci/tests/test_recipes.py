"""The README's method, network and data set, pasted as printed into a copy of the tree: one file
each, all tests pass.

Everything runs in processes of their own, which import the copy's sagelib.
"""
import os
import re
import shutil
import subprocess

import pytest
from sweeps import BIN, HANGS

from sagelib.bench.paths import TOP

RECIPES = re.findall(r"`sagelib/(\w+)/(\w+)\.py`[^\n]*:\n\n```python\n(.*?)```",
                     (TOP / "README.md").read_text(), re.S)
# the tests that look at the tree, and those that run for each name of a catalogue; the notebooks
# run below
LOOKING = [
    TOP / "ci/tests/test_book.py",
    TOP / "ci/tests/test_types.py",
    *sorted(p for p in (TOP / "ci/tests").glob("test_*.py")
            if p.stem not in ("test_gpu", "test_experiment") and re.search(
                r"parametrize\(.*\bnames\((methods|models|datasets)\)|^NAMES = catalog\.names",
                p.read_text(), re.M))
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the three files in it."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    copy.mkdir()
    for file in ("README.md", "pyproject.toml", "environment.yml", "jupytext.toml"):
        shutil.copy(TOP / file, copy)
    for folder in (".github", "book", "ci", "notebooks", "sagelib"):
        skip = shutil.ignore_patterns("_build", "__pycache__", ".ipynb_checkpoints", "runs",
                                      ".*_cache")
        shutil.copytree(TOP / folder, copy / folder, ignore=skip)
    assert [folder for folder, *_ in RECIPES] == ["methods", "models", "datasets"]
    for folder, name, code in RECIPES:
        with open(copy / f"sagelib/{folder}/{name}.py", "x") as file:
            file.write(code)
    return copy


def there(tree, *words):
    """Run a command of this environment in the copy; returns what it printed, fails with it."""
    ended = subprocess.run(
        [BIN / words[0], *words[1:]], cwd=tree, capture_output=True, text=True, timeout=HANGS,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"})
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
    return ended.stdout


def test_what_is_pasted_passes_the_tests(tree):
    there(tree, "ruff", "check", ".")
    assert there(tree, "python", "-c",
                 "import sagelib; print(sagelib.__file__)") == f"{tree}/sagelib/__init__.py\n"
    files = [tree / file.relative_to(TOP) for file in LOOKING]
    ids = " or ".join(f"{name}]" for _, name, _ in RECIPES)
    said = there(tree, "python", "-m", "pytest", "-vv", "-p", "no:cacheprovider", *files, "-k",
                 f"test_book or test_types or {ids}")
    passed = re.findall(r"^ci/tests/(\S+) PASSED", said, re.M)
    assert any(test.startswith("test_book.py::test_the_reference_") for test in passed)
    for folder, name, _ in RECIPES:
        assert any(
            test.startswith("test_book.py") and f"[sagelib/{folder}/{name}.py]" in test
            for test in passed)
    counts = {name: sum(f"[{name}]" in test for test in passed) for _, name, _ in RECIPES}
    assert counts["half"] >= 10 and counts["tiny"] >= 2, counts


def test_what_is_pasted_trains_by_its_name(tree, image_folder, tmp_path):
    there(tree, "papermill", "notebooks/experiments/train.ipynb", tmp_path / "out.ipynb",
          "--no-progress-bar", "--cwd", tmp_path,
          *(word for folder, name, _ in RECIPES for word in ("-p", folder.removesuffix("s"), name)),
          "-p", "root", image_folder, "-p", "epochs", "1")
    record, = (tmp_path / "runs").rglob("*.json")
    assert record.relative_to(tmp_path / "runs").parts[:2] == ("pets", "tiny")
    assert record.name.startswith("half-seed0-")
