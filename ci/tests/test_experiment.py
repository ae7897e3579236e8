"""The experiment notebook through papermill, as users run it: every method, own pictures, what it refuses."""
from pathlib import Path

import papermill
import pytest

from sagelib import methods, records
from sagelib.catalog import names

NOTEBOOK = Path(__file__).parents[2] / "notebooks/experiments/train.ipynb"


def run(folder, **parameters):
    papermill.execute_notebook(NOTEBOOK, folder / "out.ipynb", cwd=folder, progress_bar=False,
                               parameters={"progress": False, "epochs": 1, "width": 4, **parameters})
    return records.every(folder / "runs")


@pytest.mark.parametrize("method", names(methods))
def test_every_method_runs_by_name(method, tmp_path):
    record, = run(tmp_path, method=method, train_images=100, seed=2)
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
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        run(tmp_path, **parameters)
    assert not list(tmp_path.rglob("*.json"))


def test_the_same_run_is_not_done_twice(tmp_path):
    record, = run(tmp_path, method="vanilla", train_images=50)
    with pytest.raises(papermill.PapermillExecutionError, match="this run has a record"):
        run(tmp_path, method="vanilla", train_images=50)
    assert records.every(tmp_path / "runs") == [record]
