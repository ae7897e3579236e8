"""The experiment notebooks as users run them: every method, own pictures, what they refuse.

Through papermill where the kernel matters; many small runs as the same cells in this process, without a kernel each.
"""
import contextlib
from pathlib import Path

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from sagelib import methods, records
from sagelib.catalog import names

NOTEBOOK = Path(__file__).parents[2] / "notebooks/experiments/train.ipynb"
REFUSED = ValueError, FileExistsError, papermill.PapermillExecutionError


def execute(name, folder, parameters, kernel=False):
    """Run a notebook in that folder; an error of a cell is raised."""
    notebook = NOTEBOOK.with_name(f"{name}.ipynb")
    if kernel:
        out = folder / "out.ipynb"
        papermill.execute_notebook(notebook, out, cwd=folder, progress_bar=False, parameters=parameters)
        return
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.reset(new_session=False)
    with contextlib.chdir(folder):
        for cell in nbformat.read(notebook, 4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
                if "parameters" in cell.metadata.get("tags", []):
                    assert parameters.keys() <= shell.user_ns.keys()
                    shell.push(parameters)


def run(folder, kernel=False, **parameters):
    execute("train", folder, {"progress": False, "epochs": 1, "width": 4, **parameters}, kernel)
    return records.every(folder / "runs")


@pytest.mark.parametrize("method", names(methods))
def test_every_method_runs_by_name(method, tmp_path):
    record, = run(tmp_path, kernel=method == "sage", method=method, train_images=100, seed=2)
    assert record["method"]["name"] == method and record["seed"] == 2 and len(record["curve"]) == 1
    assert record["dataset"]["train"] == 100 and record["model"]["width"] == 4
    assert record["kind"].startswith("shortened: epochs 1") and record["parameters"]["train_images"] == 100
    assert not list((tmp_path / "runs/checkpoints").iterdir())


def test_a_folder_of_ones_own_pictures(pictures, tmp_path):
    record, = run(tmp_path, dataset="folder", root=str(pictures), method="sage", batch=4, options={"fraction": 0.5})
    assert record["dataset"] == dict(name="folder", classes=2, train=6, test=4, height=12, width=16)
    assert record["method"]["fraction"] == 0.5


@pytest.mark.parametrize("parameters, message", [
    (dict(method="cutmixx"), "did you mean 'cutmix'"), (dict(dataset="imagenet"), "known: cifar10"),
    (dict(model="vgg"), "unknown model 'vgg'"), (dict(settings="best"), "known: default, paper"),
    (dict(options={"eta": 1}), "has no option 'eta'"), (dict(precision="fp8"), "unknown precision 'fp8'"),
])
def test_unknown_values_are_refused_with_the_known_ones(parameters, message, tmp_path):
    with pytest.raises(REFUSED, match=message):
        run(tmp_path, **parameters)
    assert not list(tmp_path.rglob("*.json"))


def test_the_same_run_is_not_done_twice(tmp_path):
    record, = run(tmp_path, method="vanilla", train_images=50)
    for kernel in (False, True):
        with pytest.raises(REFUSED, match="this run has a record"):
            run(tmp_path, kernel, method="vanilla", train_images=50)
    assert records.every(tmp_path / "runs") == [record]


def test_seeds_trained_together_have_a_record_each_as_if_alone(tmp_path):
    (tmp_path / "alone").mkdir()
    alone, = run(tmp_path / "alone", train_images=100, seed=1)
    both = run(tmp_path, train_images=100, seed=0, more_seeds=[1])
    both = [r for r in both if r["seconds"]["together"] == 2]
    assert [r["seed"] for r in both] == [0, 1] and alone["seconds"]["together"] == 1
    assert both[1]["run"] == alone["run"] and both[0]["run"] != alone["run"]
    assert both[1]["final"] == alone["final"]


def benchmark(name, folder, **parameters):
    execute(name, folder, parameters, kernel=True)
    record, = records.timings(folder / "runs", name)
    assert record["kind"] == "timing" and record["commit"] and record["hardware"]["threads"] == 1
    assert records.every(folder / "runs") == []
    for row in record["rows"]:
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    return record


def test_the_search_is_timed_against_loops_on_the_same_draws(tmp_path):
    record = benchmark("search_time", tmp_path, pairs=6, sizes=[12, 16], fractions=[0.02, 1.0], rounds=2)
    rows = {(r["name"], r["size"], r["fraction"]): r for r in record["rows"]}
    assert len(rows) == 12 and rows["library", 12, 0.02]["shifts"] == int(0.02 * 23 * 23)
    assert rows["library", 16, 1.0]["form"] == "table" and rows["library", 16, 0.02]["form"] == "slices"
    assert rows["library", 16, 1.0]["ratio"]["high"] == 1 < rows["canvas", 16, 1.0]["ratio"]["median"]


def test_every_methods_step_is_timed_over_two_vanilla_steps(tmp_path):
    record = benchmark("step_time", tmp_path, sides="all", width=4, batch=6, rounds=1)
    rows = {r["name"]: r for r in record["rows"]}
    assert set(names(methods)) < set(rows) and rows["two vanilla steps"]["ratio"]["median"] == 1
    assert rows["sage"]["launches"] > rows["vanilla"]["launches"] and "part: search" in rows
    assert 0 < record["parameters"]["bf16_agreement"]["correlation"] <= 1


def few_shot(folder, kernel=False, **parameters):
    execute("few_shot", folder, {"progress": False, "width": 4, "epochs": 2, "episodes": 40, **parameters}, kernel)
    return records.every(folder / "runs", "few_shot")


@pytest.mark.parametrize("method", ["sage", "manifold_mixup"])
def test_a_few_shot_run_becomes_a_record(method, tmp_path):
    record, = few_shot(tmp_path, kernel=method == "sage", method=method, shots=[1, 3])
    assert records.every(tmp_path / "runs") == [] and record["method"]["name"] == method
    assert record["dataset"] == dict(name="shapes_fs", classes=16, train=960, val_classes=6, test_classes=6, height=32,
                                     width=32)
    assert [(e["shots"], e["distance"]) for e in record["episodes"]] == [
        (1, "cosine"), (1, "euclidean"), (3, "cosine"), (3, "euclidean")]
    best = max(e["val_accuracy"] for e in record["curve"])
    assert len(record["curve"]) == 2 and record["chosen"]["val_accuracy"] == best
    assert record["chosen"]["exam"] == dict(ways=5, shots=3, queries=15, episodes=40, seed=0, distance="cosine")
    assert list((tmp_path / "runs/networks/few_shot").rglob("*.pt")) and not list(tmp_path.rglob("checkpoints/*.pt"))
    with pytest.raises(REFUSED, match="this run has a record"):
        few_shot(tmp_path, method=method, shots=[1, 3])
    if method == "sage":
        few_shot(tmp_path, method=method, shots=[1, 2])  # another exam chooses, so it is another run


@pytest.mark.parametrize("notebook, parameters, message", [
    (few_shot, dict(dataset="shapes"), "no few-shot data set: its test classes are those it trains on"),
    (few_shot, dict(queries=60), "needs 61 pictures of a class"), (few_shot, dict(ways=7), "here are 6: take fewer"),
    (few_shot, dict(distances=["l1"]), r"distances \['l1'\]: one or more"),
    (run, dict(dataset="shapes_fs"), "its test classes are new ones; take experiments/few_shot"),
])
def test_what_does_not_fit_is_refused_before_training(notebook, parameters, message, tmp_path):
    with pytest.raises(REFUSED, match=message):
        notebook(tmp_path, **parameters)
    assert not list(tmp_path.rglob("*.json"))


def test_robustness_goes_into_the_record_of_its_network_once(tmp_path):
    record, = run(tmp_path, method="vanilla", train_images=200)
    file = records.path(record, tmp_path / "runs")

    def evaluate(kernel=False, **parameters):
        execute("robustness", tmp_path, {"record": str(file), "images": 50, "pgd_steps": 2, "corruption_images": 20,
                                         "severities": [5], **parameters}, kernel)

    evaluate(kernel=True)
    added, = records.read(file)["evaluations"]
    assert {k: v for k, v in records.read(file).items() if k != "evaluations"} == record
    assert set(added["results"]["perturbed"]) >= {"pixels, clamped", "normalised, not clamped"}
    assert len(added["results"]["corruptions"]) == 15 and added["parameters"]["corruption_images"] == 20
    assert added["parameters"]["images"] == added["parameters"]["pgd_images"] == 50
    with pytest.raises(REFUSED, match="holds this evaluation already"):
        evaluate()
    better = {**record, "final": {**record["final"], "accuracy": record["final"]["accuracy"] + 5}}
    other = records.write(better, tmp_path / "others")
    with pytest.raises(REFUSED, match="do not belong together"):
        evaluate(record=str(other), weights_file=str(next((tmp_path / "runs/networks").rglob("*.pt"))))
    assert len(records.read(file)["evaluations"]) == 1 and "evaluations" not in records.read(other)
