"""Sweeps: plans read into cells, and runs that lose nothing however they are stopped. Real notebooks, real signals."""
import json
import os
import re
import signal
import subprocess

import pytest
from sweeps import PLAN, PLANS, TOP, alive, attempts, command, four_records, swept, wait

from sagelib import _plan, catalog, methods, records, sweep
from sagelib._attempt import publish, short
from sagelib._view import View

# plans

def test_a_plan_is_every_combination_with_every_seed(plan):
    title, cells = _plan.read(plan("""
title: T
notebook: train
cells:
  - {dataset: shapes, model: [preactresnet18, wrn16_8], method: sage, options: [{u: 1.0}, {fraction: 0.1}]}
  - {dataset: shapes, model: preactresnet18, method: all, lr: 0.1}
  - {dataset: shapes, model: preactresnet18, method: mixup, seed: [5, 7, 9]}
"""), "small")
    assert title == "T" and len(cells) == 2 * (2 * 2 + len(catalog.names(methods))) + 3
    assert [c.parameters["seed"] for c in cells[-3:]] == [5, 7, 9]
    assert cells[0].parameters == dict(dataset="shapes", model="preactresnet18", method="sage", options={"u": 1.0},
                                       epochs=1, width=4, train_images=200, seed=0)
    assert {c.parameters["method"] for c in cells} == set(catalog.names(methods))
    assert len({c.name for c in cells}) == len(cells) and cells[0].name.startswith("shapes-preactresnet18-sage-seed0-")


@pytest.mark.parametrize("name, size, count", [
    ("table_1", "paper", 96), ("table_1", "laptop", 16), ("table_2", "paper", 21), ("table_3", "laptop", 14),
    ("table_4", "laptop", 16), ("table_6", "laptop", 2), ("table_7", "paper", 30)])
def test_the_books_plans_hold_the_tables_runs(name, size, count):
    _, cells = _plan.read(PLANS / f"{name}.yml", size)
    assert len(cells) == count
    for cell in cells:
        if cell.parameters.get("method") == "comixup" and cell.parameters["dataset"] == "cifar10":
            assert cell.parameters["lr"] == 0.12
    if name == "table_1":
        said = {(row["dataset"], row["model"], m) for row in records.reported(1) for m in list(row)[2:]}
        asked = {tuple(c.parameters[k] for k in ("dataset", "model", "method")) for c in cells}
        assert asked == (said if size == "paper" else {s for s in said if s[0] == "cifar10"})


def test_every_plan_of_the_book_reads_at_every_size():
    for file in PLANS.glob("*.yml"):
        for size in ("paper", "short", "laptop", "tiny") if file.stem != "sizes" else ():
            assert _plan.read(file, size)[1], (file.name, size)


@pytest.mark.parametrize("change, message", [
    (("mixup", "mixupp"), "unknown method 'mixupp'; known: "),
    (("title", "titel"), "unknown entry 'titel'; known: cells"),
    (("notebook: train", "notebook: trane"), "no experiment 'trane'; known: few_shot"),
    (("dataset: shapes, ", ""), "the entry 'dataset' is missing"),
    (("method:", "epoch: 3, method:"), "unknown entry 'epoch'; known: "), (("cells:", "cells: ["), "is not YAML"),
])
def test_a_plan_that_is_wrong_is_one_clear_error(change, message, plan):
    with pytest.raises(ValueError, match=message) as caught:
        _plan.read(plan(PLAN.replace(*change)), "small")
    assert "\n" not in str(caught.value)


def test_unknown_sizes_and_missing_plans(plan, tmp_path):
    with pytest.raises(ValueError, match="unknown size 'big'; known: small"):
        _plan.read(plan(), "big")
    with pytest.raises(FileNotFoundError, match=r"no plan .*nowhere"):
        _plan.read(tmp_path / "nowhere.yml", "small")


@pytest.mark.parametrize("only, message", [
    ("method=sage", "no cell of the plan has method=sage; of its 4 cells, size small, method is mixup or vanilla"),
    ("sed=0", "no cell of the plan has sed=0; .* sed is None"), ("sage", "--only takes NAME=VALUE, .* not 'sage'")])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_a_choice_of_cells_that_leaves_none_is_refused(only, message, dry, plan, tmp_path):
    ended = swept(plan(), tmp_path, "--only", only, *dry)
    assert ended.returncode == 2 and re.search(message, ended.stderr) and not ended.stdout, ended.stderr
    assert not (tmp_path / "out").exists()


# runs

def test_a_sweep_runs_what_is_missing_and_nothing_twice(plan, tmp_path):
    asked = swept(plan(), tmp_path, "--dry-run")
    assert asked.returncode == 0 and asked.stdout.count("shapes-preactresnet18-") == 4
    assert not (tmp_path / "out").exists()
    first = swept(plan(), tmp_path, "--only", "method=vanilla")
    assert first.returncode == 0 and len(attempts(tmp_path)) == 2, first.stderr
    second = swept(plan(), tmp_path)
    assert second.returncode == 0 and "4 cells, 2 done, 2 to run" in second.stdout
    assert "[2/2 done, 0 running, 0 failed" in second.stdout and len(attempts(tmp_path)) == 4
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}
    third = swept(plan(), tmp_path)
    assert third.returncode == 0 and "4 done, 0 to run" in third.stdout and len(attempts(tmp_path)) == 4
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}
    for record in four_records(tmp_path):
        assert record["parameters"]["epochs"] == 1 and record["dataset"]["train"] == 200


def test_a_cell_that_fails_leaves_its_notebook_and_a_line_and_the_others_go_on(plan, tmp_path):
    text = PLAN.replace("[vanilla, mixup]}", "[vanilla, mixup], options: [{}, {alpha: -1}]}")
    ended = swept(plan(text), tmp_path, "--only", "seed=0")
    assert ended.returncode == 1 and "[1/4 done" in ended.stdout
    assert "vanilla has no option 'alpha'" in ended.stdout
    assert "failed (ValueError: Mixup: alpha is -1; it must be a number from 0 to 100; see " in ended.stdout
    assert {r["method"]["name"] for r in records.every(tmp_path / "results")} == {"vanilla", "mixup"}
    failed = [p for p in attempts(tmp_path) if (p / "error.txt").exists()]
    assert len(failed) == 2 and all(len((p / "error.txt").read_text().splitlines()) == 1 for p in failed)
    assert all("train.ipynb" in [f.name for f in p.iterdir()] for p in failed)


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_driver_loses_nothing_and_leaves_nothing_running(signal_, plan, tmp_path):
    file = plan(epochs=6)
    driver = subprocess.Popen(command(file, tmp_path), cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait(lambda: list((tmp_path / "out").glob("checkpoints/*.pt")))
    assert sum("ipykernel" in what for what in alive(tmp_path).values()) >= 1
    driver.send_signal(signal_)
    assert driver.wait(30) == (130 if signal_ == signal.SIGINT else -9)
    wait(lambda: not alive(tmp_path), 30)
    begun = len(attempts(tmp_path))
    saved = list((tmp_path / "out").glob("checkpoints/*.pt"))
    ended = swept(file, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = four_records(tmp_path)
    assert len(attempts(tmp_path)) >= begun + 1 and saved and not list((tmp_path / "out").glob("checkpoints/*.pt"))
    assert all(len(r["curve"]) == 6 for r in found) and not alive(tmp_path)


def test_a_killed_attempt_is_tried_again(plan, tmp_path):
    file = plan(epochs=4)
    asked = command(file, tmp_path, "--only", "seed=0")
    driver = subprocess.Popen(asked, cwd=TOP, stdout=subprocess.PIPE, text=True)
    wait(lambda: list((tmp_path / "out").glob("checkpoints/*.pt")))
    os.kill(next(p for p, what in alive(tmp_path).items() if "sagelib._attempt" in what), signal.SIGKILL)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0 and "was killed; it is tried again" in said
    assert len(records.every(tmp_path / "results")) == 2 and len(attempts(tmp_path)) == 3
    wait(lambda: not alive(tmp_path), 30)


def test_two_sweeps_in_one_folder_are_refused(plan, tmp_path):
    with sweep.alone(tmp_path / "out"):
        ended = swept(plan(), tmp_path)
    assert ended.returncode == 2 and "another sweep works in" in ended.stderr and not attempts(tmp_path)


def test_of_two_attempts_the_first_to_publish_stands(tmp_path):
    made = json.loads(next((TOP / "book/results/cifar10").rglob("*.json")).read_text())
    for folder in ("one", "two"):
        records.write({**made, "finished": folder}, tmp_path / folder)
    one, two = (next((tmp_path / folder).rglob("*.json")) for folder in ("one", "two"))
    place = publish(one, tmp_path / "results")
    assert publish(two, tmp_path / "results") == place and records.read(place)["finished"] == "one"


def test_a_record_left_by_a_killed_attempt_is_published_not_trained_again(plan, tmp_path):
    file = plan()
    assert swept(file, tmp_path, "--only", "seed=0", "method=vanilla").returncode == 0
    record, = (tmp_path / "results").rglob("*.json")
    attempt, = attempts(tmp_path)
    inside = attempt / "results" / record.relative_to(tmp_path / "results")
    inside.parent.mkdir(parents=True)
    record.rename(inside)  # as if it had been killed just before
    before = inside.read_text()
    ended = swept(file, tmp_path, "--only", "seed=0", "method=vanilla")
    assert ended.returncode == 0 and record.read_text() == before
    assert len(attempts(tmp_path)) == 2 and len(list((tmp_path / "out").rglob("train.ipynb"))) == 1


def test_the_executed_notebook_stands_beside_its_record_without_folders_or_pictures(plan, tmp_path):
    assert swept(plan(), tmp_path, "--only", "seed=0", "method=mixup").returncode == 0
    record, = (tmp_path / "results").rglob("*.json")
    text = record.with_suffix(".ipynb").read_text()
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    assert str(tmp_path) not in text and str(TOP) not in text and '"papermill"' not in text
    assert all(c["execution_count"] for c in cells)
    drawn = ["".join(c["source"]) for c in cells if any("image/png" in o.get("data", {}) for o in c["outputs"])]
    assert len(drawn) == 1 and "live.update" in drawn[0]  # the learning curve
    assert "ATTEMPT/results" in text and json.loads(record.read_text())["run"] in text


def test_a_benchmark_can_be_planned_too(plan, tmp_path):
    text = """
title: T
notebook: step_time
cells:
  - {model: [preactresnet18, resnext29_4_24], sides: [[[vanilla, {}], [sage, {u: 0.5}]]]}
sizes:
  small: {seeds: [0], parameters: {width: 4, batch: 4, rounds: 1}, only: {model: preactresnet18}}
"""
    ended = swept(plan(text), tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record, = records.timings(tmp_path / "results", "step_time")
    assert [r["name"] for r in record["rows"]][:3] == ["two vanilla steps", "vanilla", "sage, u 0.5"]
    assert "1 done, 0 to run" in swept(plan(text), tmp_path).stdout


def test_the_time_left_goes_by_what_finished_cells_took():
    def cell(method, seed):
        return _plan.Cell("train", dict(dataset="cifar10", model="preactresnet18", method=method, seed=seed))
    cells = {(m, s): cell(m, s) for m in ("vanilla", "comixup") for s in (0, 1)}
    view = View(cells.values(), lambda line: None)
    view.started(cells["vanilla", 0])
    assert view.left() == ""
    view.since[cells["vanilla", 0].name] -= 600
    view.done(cells["vanilla", 0])
    expected = 10 + 2 * 10 * 25.29 / 3.35  # minutes; Co-Mixup by the paper's Table 6
    assert view.left() == f", {expected / 60:.1f} h left"
    view.started(cells["comixup", 0])
    view.since[cells["comixup", 0].name] -= 1200
    view.done(cells["comixup", 0])
    assert view.left() == ", 30 min left"  # 10 for vanilla, 20 for Co-Mixup, as its own first took
    view.started(cells["vanilla", 1])
    view.started(cells["comixup", 1])
    view.since[cells["comixup", 1].name] -= 600
    assert view.left() == ", 10 min left"  # ten minutes of each, two at a time


def test_what_follows_runs_on_the_trained_network(plan, tmp_path):
    text = PLAN.replace("notebook: train", "notebook: train\nthen: robustness").replace("[vanilla, mixup]", "vanilla")
    ended = swept(plan(text), tmp_path, "--only", "seed=1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record, = records.every(tmp_path / "results")
    assert records.evaluation(record, "robustness")["clean"] == pytest.approx(record["final"]["accuracy"], abs=0.1)
    assert "1 done, 0 to run" in swept(plan(text), tmp_path, "--only", "seed=1").stdout


def test_errors_are_said_in_a_line():
    assert short(ValueError("\x1b[31mtop\x1b[0m\n\nValueError: lr is 0\n")) == "ValueError: lr is 0"
    assert short(KeyError()) == "KeyError"
