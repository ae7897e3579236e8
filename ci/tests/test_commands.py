"""Every command that README, notebooks, the site's pages, plans and sagelib's docstrings print is
run, at tiny size.

`printed` finds the commands, so that a new one is tested without a change here. One that no rule
knows fails with its text. Each is run as it is printed, with values for its placeholders, and with
parameters that make it small.
"""
import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import nbformat
import papermill.cli
import pytest
import torch
from experiments import execute
from sweeps import BIN, HANGS
from test_recipes import RECIPES

from sagelib import SAGE, catalog
from sagelib.bench import parameters, plans, records, sweep
from sagelib.bench.paths import PLANS, TOP

# finding them

WORDS = (r"(?:[A-Z]+=\S+ )*"
         r"(?:\.venv/bin/|ci/|papermill |python3? |jupytext |jupyter |sbatch |%?pip3? |bash "
         r"|conda |git |docker )")
OPTIONS = r"(?:-p|-y) |--[a-z]"
# options of programs that are not ours: timm's and torchvision's scripts, the authors' code
OTHERS = {"--mixup", "--cutmix", "--smoothing 0", "--mixup-alpha", "--cutmix-alpha", "--seed",
          "--eval_mode"}


@dataclass(frozen=True)
class Command:
    """A command on one line, and where it is printed."""

    text: str
    place: str

    words = property(lambda self: shlex.split(self.text, comments=True))


def printed(text, place):
    """The commands of a text in Markdown or of a docstring, in its order.

    They are lines of code blocks, fenced or indented, and code in single backticks. Options alone,
    such as `-p width 16`, belong to the last command before them, or to the experiment that was
    named last.
    """
    found, last = [], {"--": "", "-p": ""}
    for code, start, lines in pieces(text):
        for line in code.replace("\\\n", " ").splitlines() if lines else [code]:
            line = " ".join(line.split()).removeprefix("$ ")
            if re.match(WORDS, line):
                found.append(line)
                last["--" if "sagelib.bench.sweep " in line else "-p"] = line
            elif not lines and re.match(OPTIONS, line) and line not in OTHERS:
                base = last[line[:2].replace("-y", "-p")]
                if not line.startswith("--"):
                    notebook = ["train", *re.findall(r"experiments/(\w+)\.ipynb", text[:start])][-1]
                    own = f"papermill notebooks/experiments/{notebook}.ipynb OUT.ipynb"
                    base = base if f"/{notebook}.ipynb" in base else own
                found.append(f"{base} {line}")
            elif text[start:].startswith(
                ("```bash", "```sh")) and line and not line.startswith("#"):
                found.append(line)
    return [Command(line, place) for line in found]


def pieces(text):
    """(code, where it starts, whether it is lines) of each code block that may hold commands and
    each `code`."""
    found = []

    def take(pattern, lines, rest):
        def cut(match):
            language = match[2] if lines == "fenced" else ""
            if language in ("", "bash", "sh", "console"):
                found.append((match["code"], match.start(), bool(lines)))
            return re.sub(r"[^\n]", " ", match[0]) if lines else match[0]
        return re.sub(pattern, cut, rest, flags=re.M | re.S)

    rest = take(r"^(`{3,})([^\n]*)\n(?P<code>.*?)^\1 *$", "fenced", text)
    rest = take(r"(?<=\n\n)(?P<code>(?: {4}[^\n]*\n?)+)", "indented", rest)
    take(r"(?<!`)`(?P<code>[^`]+)`(?!`)", "", rest)
    return sorted(found, key=lambda piece: piece[1])


def texts():
    """(file, text) of all that is read for commands."""
    for folder in ("", "book", "notebooks"):
        for file in sorted((TOP / folder).glob("*.md")):
            yield file, file.read_text()
    for file in sorted((TOP / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in file.parts:
            yield file, "\n\n".join(c.source
                                    for c in nbformat.read(file, 4).cells
                                    if c.cell_type == "markdown")
    for file in sorted(PLANS.iterdir()):
        yield file, "\n".join(re.findall(r"(?:^|\s)#(?!!) ?(.*)", file.read_text()))
    for file in sorted((TOP / "sagelib").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        documented = [n for n in nodes
                      if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef))]
        said = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        messages = re.findall(r"pip install (?:'[^']+'|[\w-]+)", "\n".join(said))
        yield file, "\n\n".join(
            [*(ast.get_docstring(n) or "" for n in documented), *(f"`{m}`" for m in messages)])


RULES = {"script": r"(REPOSITORY=\S+ )?ci/\w+( |$)",
         "papermill": r"(\.venv/bin/)?papermill notebooks/experiments/",
         "sweep": r"(\.venv/bin/)?python -m sagelib\.bench\.sweep( |$)",
         "attempt": r"python -m sagelib\.bench\.sweep\.worker FOLDER$",
         "slurm": r"sbatch book/plans/sweep\.sbatch ",
         "jupytext": r"(\.venv/bin/)?jupytext --sync ", "jupyter": r"\.venv/bin/jupyter lab$",
         "demo": r"(\.venv/bin/)?python -m sagelib demo$", "pip": r"%?pip install "}


def kind(command):
    """The rule that knows a command, or None."""
    return next((name for name, rule in RULES.items() if re.match(rule, command.text)), None)


ALL = list({command.text: command for file, text in texts()
            for command in printed(text, str(file.relative_to(TOP)))}.values())


def of(name, chosen=lambda command: True):
    """A mark that runs a test with every command of a kind."""
    found = [c for c in ALL if kind(c) == name and chosen(c)]
    return pytest.mark.parametrize("command", found, ids=lambda c: f"{c.place}: {c.text}")


def test_commands_are_found_however_they_are_printed():
    text = """Run `ci/x --save` or `jupytext
--sync A`, not `net(x)`.

```python
papermill(no)
```
```bash
ci/a   # what it does
papermill notebooks/experiments/few_shot.ipynb OUT.ipynb \\
    -p root DATA
make it
```
With `-p width
16` or, in [another](experiments/train.ipynb), `-y 'options: {u: 1}'`. `-p` takes numbers.

    python -m sagelib.bench.sweep PLAN --size tiny

With `--dry-run`, `--smoothing 0`.
"""
    few_shot = "papermill notebooks/experiments/few_shot.ipynb OUT.ipynb -p root DATA"
    found = printed(text, "")
    assert [c.text for c in found] == [
        "ci/x --save", "jupytext --sync A", "ci/a # what it does", few_shot, "make it",
        f"{few_shot} -p width 16",
        "papermill notebooks/experiments/train.ipynb OUT.ipynb -y 'options: {u: 1}'",
        "python -m sagelib.bench.sweep PLAN --size tiny",
        "python -m sagelib.bench.sweep PLAN --size tiny --dry-run"]
    assert found[2].words == ["ci/a"] and kind(found[4]) is None and kind(found[5]) == "papermill"


def test_every_command_is_known_here():
    unknown = [f"{c.place}: {c.text}" for c in ALL if kind(c) is None]
    assert not unknown, "no rule runs these commands: " + "; ".join(unknown)
    kinds = {kind(c) for c in ALL}
    assert kinds == set(RULES), f"rules without a command: {set(RULES) - kinds}"


# running them

def run(words, folder=TOP, **environment):
    """A command in a process of this environment; returns what it printed, fails with it."""
    words = [str(BIN / Path(words[0]).name), *map(str, words[1:])]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=HANGS,
                           env={**os.environ, "PYTHONPATH": str(TOP), **environment})
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


@of("script")
def test_a_script_is_there_and_knows_its_options_and_variables(command):
    """The suite runs them, and test_cluster.py reads them with shellcheck."""
    *variables, file = command.words[:1 + command.words[0].startswith("REPOSITORY=")]
    assert os.access(TOP / file, os.X_OK)
    text = (TOP / file).read_text() + (TOP / "ci/environment.sh").read_text()
    for name in [*(v.split("=")[0] for v in variables), *command.words[len(variables) + 1:]]:
        assert name in text, f"{file} knows no {name}"


@of("pip")
def test_what_is_to_be_installed_is_ours_or_needed(command):
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {re.match(r"[\w-]+", need)[0] for needs in [project["dependencies"], *extras.values()]
             for need in needs}
    ours = {".", project["name"], "PATH-OF-THE-CHECKOUT", "git+https://github.com/NAME/PROJECT"}
    what, = [word for word in command.words[2:] if word != "-e"]
    name, chosen = re.fullmatch(r"([^\[]+)(?:\[([\w,]+)\])?", what).groups()
    assert name in (ours if chosen else ours | known)
    assert set((chosen or "book").split(",")) <= set(extras)


@of("demo", lambda command: command.place == "README.md")
def test_the_demo_writes_its_figure_and_its_numbers(command, tmp_path):
    printed_ = run(command.words, tmp_path)
    figure, = tmp_path.iterdir()
    assert f"The mixed images: {figure.name}." in printed_ and figure.stat().st_size > 20_000
    numbers = dict(re.findall(r"^(\w+) +(\d\.\d\d)$", printed_, re.M))
    assert numbers["mixup"] == "1.00" and float(numbers["sage"]) > 1.05


@of("jupyter")
def test_jupyter_starts(command):
    assert run([*command.words, "--version"]).strip()


@of("jupytext")
def test_an_edit_of_a_script_comes_into_its_notebook(command, tmp_path):
    """In a copy."""
    notebook = Path(command.words[-1])
    twin = Path("notebooks/py", notebook.relative_to("notebooks")).with_suffix(".py")
    for file in ("jupytext.toml", notebook, twin):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / file, tmp_path / file)
    os.utime(tmp_path / notebook, (0, 0))
    with open(tmp_path / twin, "a") as file:
        file.write("\n# %%\nadded = 1\n")
    run(command.words, tmp_path)
    before, (*after, added) = (nbformat.read(top / notebook, 4).cells for top in (TOP, tmp_path))
    assert added.source == "added = 1"
    assert [c.get("outputs") for c in after] == [c.get("outputs") for c in before]


# papermill

SMALL = {
    "train": dict(epochs=1, width=4, train_images=100, progress=False),
    "few_shot": dict(epochs=2, width=4, episodes=40, progress=False),
    "robustness": dict(images=50, pgd_steps=2, corruption_images=20, severities=[5]),
    "attack_readings": dict(images=50),
    "step_time": dict(width=4, batch=4, rounds=1, compile_network=False, sides=[["sage", {}]]),
    "search_time": dict(pairs=6, rounds=1, sizes=[12])}
INSTEAD = {"cifar10": "shapes", "cifar100": "shapes", "mini_imagenet": "shapes_fs",
           "cifar_fs": "shapes_fs"}


def parsed(command):
    """The experiment that a papermill command runs, and the parameters that papermill makes of its
    words."""
    with (mock.patch.object(papermill.cli, "execute_notebook") as ran,
          mock.patch.object(papermill.cli, "logging")):
        papermill.cli.papermill.main(command.words[1:], standalone_mode=False)
    return Path(ran.call_args.kwargs["input_path"]).stem, ran.call_args.kwargs["parameters"]


def small(command):
    """The same command's experiment and parameters, where it is small."""
    notebook, given = parsed(command)
    less = dict(SMALL[notebook])
    if "dataset" in given:
        less["dataset"] = INSTEAD.get(given["dataset"], given["dataset"])
    elif notebook in ("train", "few_shot"):
        less["dataset"] = INSTEAD["cifar10" if notebook == "train" else "cifar_fs"]
    if less.get("dataset") == "folder":  # the data set of these tests has six images
        less["train_images"] = 0
    return notebook, {**given, **less, **({"results": "runs"} if "results" in given else {})}


def pasted(command):
    """Whether a command names what the README's recipes add, which ci/tests/test_recipes.py
    runs."""
    return any(
        parsed(command)[1].get(folder.removesuffix("s")) == name for folder, name, _ in RECIPES)


@of("papermill")
def test_parameters_are_the_notebooks(command):
    notebook, given = parsed(command)
    assert (TOP / command.words[1]).exists() and command.words[2] == "OUT.ipynb"
    unknown = set(given) - set(plans.defaults(notebook))
    assert not unknown, f"{notebook}.ipynb has no parameter {', '.join(unknown)}"
    parameters.checked(**given)
    for name, package in plans.CATALOGUES.items():
        assert name not in given or given[name] in catalog.names(package) or pasted(command)


def effect(command):
    """What a command does where it is small: two of the same effect are run once."""
    notebook, given = small(command)
    defaults = plans.defaults(notebook)
    decisive = {k: v for k, v in given.items() if k not in ("root", "results") and v != defaults[k]}
    return json.dumps([notebook, decisive], sort_keys=True)


PAPERMILL = [c for c in ALL if kind(c) == "papermill"]
# these run through papermill's command line; of the others it reads the words, and their cells run
# in this process
AS_PRINTED = [c for c in PAPERMILL if " -y " in c.text and c.place == "README.md"]


def as_printed(command, folder):
    """Run a command through papermill's command line; returns its records."""
    given, (notebook, wanted) = parsed(command)[1], small(command)
    more = {k: v for k, v in wanted.items() if given.get(k) != v} | {
        "results": folder / "runs", "checkpoints": folder / "runs/checkpoints",
        "networks": folder / "runs/networks"}
    places = {"OUT.ipynb": folder / "out.ipynb", "DATA": folder / "data"}
    run([*(places.get(word, word) for word in command.words),
         *(word for name, value in more.items() for word in ("-p", name, value))])
    assert (folder / "out.ipynb").exists()
    return records.of_notebook(notebook, folder / "runs")


@pytest.mark.parametrize("command", AS_PRINTED, ids=lambda c: c.text)
def test_papermill_hands_on_lists_and_mappings(command, tmp_path):
    found, given = as_printed(command, tmp_path), parsed(command)[1]
    assert [r["seed"] for r in found] == [0, *given.get("more_seeds", [])]
    assert given.get("options", {}).items() <= found[0]["method"].items()
    assert ("options" in given) + len(found) > 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which the README's first training command has run."""
    folder = tmp_path_factory.mktemp("trained")
    notebook, given = small(PAPERMILL[0])
    execute(notebook, folder, given)
    return folder


def test_the_first_command_trains_sage_as_the_readme_says(trained):
    record, = records.every(trained / "runs")
    assert record["method"]["name"] == "sage" and record["model"]["name"] == "preactresnet18"
    assert record["seed"] == 0
    assert record["recipe"]["lr"] == 0.2 and record["dataset"]["train"] == 100


def others():
    """The other papermill commands, one of those with the same effect."""
    found = {effect(c): c for c in reversed(PAPERMILL)}
    return [c for c in reversed(found.values())
            if c not in AS_PRINTED and c != PAPERMILL[0] and not pasted(c)]


@pytest.mark.parametrize("command", others(), ids=lambda c: c.text)
def test_an_experiment_runs_as_printed(command, trained, image_folder, tmp_path):
    notebook, given = small(command)
    record = next((trained / "runs").rglob("sage-seed0-*.json"))
    places = {"DATA": str(tmp_path / "data"), "IMAGES": str(image_folder)}
    network = next((trained / "runs/networks").rglob("sage-seed0-*.pt"))
    files = {"record": str(record), "weights_file": str(network)}
    given = {k: files[k] if "…" in str(v) else places.get(v, v) if isinstance(v, str) else v
             for k, v in given.items()}
    evaluation = {"robustness": "corruptions", "attack_readings": "fgsm"}.get(notebook)
    if evaluation:
        given |= {"networks": str(trained / "runs/networks"), "results": str(trained / "runs")}
    execute(notebook, tmp_path, given)
    if evaluation:
        assert records.evaluation(records.read(record), notebook)[evaluation]
    else:
        found = records.of_notebook(notebook, tmp_path / "runs")
        assert len(found) == 1 + len(given.get("more_seeds", []))
        assert all(r["dataset"]["name"] == given["dataset"] for r in found if "dataset" in r)


# sweeps

def dry(words, folder):
    """The exit status of a sweep with these words, which says what it would run where there is no
    record."""
    words = [str(folder / word) if word in ("DATA", "MINE") else word for word in words]
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        return sweep.main([*words, "--dry-run", "--results", str(folder / "results")])
    finally:
        for kind_, handler in handlers.items():
            signal.signal(kind_, handler)


@of("sweep")
def test_sweep_says_what_it_would_run(command, tmp_path, capsys):
    words = command.words[3:]
    if words:
        assert dry(words, tmp_path) == 0 and " cells are to run" in capsys.readouterr().out
    else:  # the program itself is meant
        with pytest.raises(SystemExit, match="0"):
            sweep.main(["--help"])


@of("slurm")
def test_slurm_script_takes_what_is_printed(command, tmp_path, capsys):
    """test_cluster.py runs the script; it gives its words to the sweep."""
    assert '"$1"' in (TOP / command.words[1]).read_text()
    assert '"${@:2}"' in (TOP / command.words[1]).read_text()
    assert dry(command.words[2:], tmp_path) == 0 and " cells are to run" in capsys.readouterr().out


def test_a_sweep_and_its_attempt_run_as_printed(tmp_path):
    """The first printed sweep, one cell of it at the smallest size; it starts the worker as it is
    printed."""
    command = next(c for c in ALL if kind(c) == "sweep")
    words = [str(tmp_path / "data") if word == "DATA" else word for word in command.words]
    said = run([*words, "--size", "tiny", "--only", "method=vanilla", "--results",
                tmp_path / "mine", "--out", tmp_path / "out"])
    record, = records.every(tmp_path / "mine")
    assert "[1/1 done, 0 running, 0 failed" in said and record["method"]["name"] == "vanilla"
    assert len(list((tmp_path / "out/attempts").glob("*/*/attempt.json"))) == 1


# the loop

def test_the_readmes_loop_trains_and_its_other_code_runs(tiny, images):
    """The README's own lines with a network, a loader and an optimiser: both losses, and the step
    that it names."""
    text = (TOP / "README.md").read_text()
    loop = re.search(r"```python\n(from sagelib import SAGE.*?)```", text, re.S)[1]
    other = loop.replace("cross_entropy(net(x), y)",
                         re.search(r"gradient reuse: loss = (.*)", loop)[1])
    assert other != loop and "mix.loss(x, target)" in other
    for lines in (loop, other):
        net = tiny()
        names = {"net": net, "loader": [images] * 30,
                 "cross_entropy": torch.nn.functional.cross_entropy,
                 "optimizer": torch.optim.SGD(net.parameters(), 0.1)}
        before = names["cross_entropy"](net(images[0]), images[1]).item()
        exec(lines, names)
        assert names["cross_entropy"](net(images[0]), images[1]).item() < before
        assert names["mix"].last is not None
    other = re.search(r"```python\n(import torch\nfrom sagelib import cat.*?)```", text, re.S)[1]
    exec(other, names := {})
    assert len(names["curve"]) == 1 and names["curve"][0]["test_accuracy"] > 5
    for call in re.findall(r"`(SAGE\([^`]*\))`", text):
        assert eval(call, {"SAGE": SAGE}).method.criterion == "bce"
