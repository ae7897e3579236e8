"""Sweeps: plans read into cells, and runs that lose nothing however they are stopped. Real
notebooks, real signals."""
import errno
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from experiments import execute
from folders import failing
from sweeps import HANGS, PLAN, alive, attempts, command, four_records, swept, wait

from sagelib import catalog, methods, models
from sagelib.bench import few_shot_setups, parameters, plans, records, sweep
from sagelib.bench.paths import PLANS, TOP
from sagelib.bench.sweep import opening, worker
from sagelib.bench.sweep.progress import SweepProgress
from sagelib.bench.sweep.worker import publish, short

SUITED = catalog.suited(methods, models, "preactresnet18")  # without those of a transformer


# plans

def test_a_plan_is_every_combination_with_every_seed(plan):
    title, cells = plans.read(
        plan("""
title: T
notebook: train
cells:
  - {dataset: shapes, model: [preactresnet18, wrn16_8], method: sage,
     options: [{u: 1.0}, {fraction: 0.1}]}
  - {dataset: shapes, model: preactresnet18, method: all, lr: 0.1}
  - {dataset: shapes, model: preactresnet18, method: mixup, seed: [5, 7, 9]}
"""), "small")
    assert title == "T" and len(cells) == 2 * (2 * 2 + len(SUITED)) + 3
    seeds = [c.parameters["seed"] for c in cells]  # a whole round with one seed before the next
    per_seed = 2 * 2 + len(SUITED)
    assert seeds == [0] * per_seed + [5, 7, 9] + [1] * per_seed
    assert cells[0].parameters == dict(dataset="shapes", model="preactresnet18", method="sage",
                                       options={"u": 1.0}, epochs=1, width=4, train_images=200,
                                       seed=0)
    assert {c.parameters["method"] for c in cells} == set(SUITED)
    assert len({c.name for c in cells}) == len(cells)
    assert cells[0].name.startswith("shapes-preactresnet18-sage-seed0-")


@pytest.mark.parametrize("name, size, count", [
    ("table_1", "paper", 96), ("table_1", "laptop", 24), ("table_1", "underfit", 16),
    ("table_2", "paper", 42), ("table_2", "laptop", 24), ("table_3", "laptop", 21),
    ("table_4", "laptop", 24), ("table_6", "laptop", 2), ("table_7", "paper", 30),
    ("controls", "laptop", 18), ("schedule", "laptop", 24), ("schedule", "medium", 48),
    ("readings", "laptop", 33), ("readings", "paper", 66), ("comixup_rate", "laptop", 6),
    ("transformer", "laptop", 15), ("transformer", "paper", 30)])
def test_the_books_plans_hold_the_tables_runs(name, size, count):
    _, cells = plans.read(PLANS / f"{name}.yml", size)
    assert len(cells) == count
    for cell in cells:
        own = name in ("comixup_rate", "transformer")  # else the paper's settings
        assert ("lr" in cell.parameters) == own
    if name == "table_1":
        said = {(row["dataset"], row["model"], m)
                for row in records.reported(1) for m in list(row)[2:]}
        asked = {tuple(c.parameters[k] for k in ("dataset", "model", "method")) for c in cells}
        assert asked == (said if size == "paper" else {s for s in said if s[0] == "cifar10"})


@pytest.mark.parametrize("change, message", [
    (("mixup", "mixupp"), "unknown method 'mixupp'; known: "),
    (("title", "titel"), "unknown entry 'titel'; known: cells"),
    (("notebook: train", "notebook: trane"),
     "no experiment 'trane'; known: attack_readings, few_shot"),
    (("dataset: shapes, ", ""), "the entry 'dataset' is missing"),
    (("method:", "epoch: 3, method:"), "unknown entry 'epoch'; known: "),
    (("cells:", "cells: ["), "is not YAML"),
    (("method: [vanilla, mixup]", "rows: [vanilla]"),
     "it must map each label to a method and its options"),
    (("method: [vanilla, mixup]", "rows: {a: [mixupp, {}]}"), "unknown method 'mixupp'; known: "),
    (("method:", "rows: {a: [sage, {}]}, method:"), "unknown entry 'method'; known: "),
    (("method:", "batch: many, method:"), "batch is 'many'; it must be a whole number"),
    (("method:", "more_seeds: [[1]], method:"),
     r"more_seeds is not for a plan: write seed: \[0, 1\]"),
    (("method:", "results: here, method:"), "results is not for a plan: the sweep gives it"),
    (("cells:", "expect: {table: 1, labels: [sage]}\ncells:"),
     "expect: the entry 'row' is missing"),
    (("cells:", "expect: {labels: sage}\ncells:"), "expect: labels is 'sage'; it must be a list"),
    (("cells:", "expect: {table: 9, row: a, labels: [b]}\ncells:"), "the paper has Tables 1 to 7"),
])
def test_a_plan_that_is_wrong_is_one_clear_error(change, message, plan):
    with pytest.raises(ValueError, match=message) as caught:
        plans.read(plan(PLAN.replace(*change)), "small")
    assert "\n" not in str(caught.value)


def test_unknown_sizes_and_missing_plans(plan, tmp_path):
    with pytest.raises(ValueError, match="unknown size 'big'; known: small"):
        plans.read(plan(), "big")
    with pytest.raises(ValueError, match=r"unknown size 'small'; known: $"):
        plans.read(plan(PLAN + "sizes: {small: null}\n"), "small")
    with pytest.raises(FileNotFoundError, match=r"no plan .*nowhere"):
        plans.read(tmp_path / "nowhere.yml", "small")


@pytest.mark.parametrize("only, message", [
    ("method=sage", "no cell of the plan has method=sage; of its 4 cells, size small, method is "
     "mixup or vanilla"), ("sed=0", "no cell of the plan has sed=0; .* sed is None"),
    ("sage", "--only takes NAME=VALUE, .* not 'sage'")
])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_a_choice_of_cells_that_leaves_none_is_refused(only, message, dry, plan, tmp_path, capsys):
    try:
        status = sweep.main(command(plan(), tmp_path, "--only", only, *dry)[3:])
    except SystemExit as ended:  # argparse ends the program
        status = ended.code
    said = capsys.readouterr()
    assert status == 2 and re.search(message, said.err) and not said.out, said.err
    assert not (tmp_path / "out").exists()


# records that are there

BOOKS = opening.book()
OTHER = {  # for each parameter that decides a result, another value
    bool: lambda v: not v, int: lambda v: v + 2, float: lambda v: v / 2 + 0.01,
    str: lambda v: v + "x", list: lambda v: [*v, v[0]], dict: lambda v: {**v, "u": 0.123}
}


def made(cell, **changed):
    """What decides in a record of the cell's run, without the run."""
    given = parameters.checked(**{**plans.defaults(cell.notebook), **cell.parameters, **changed})
    height = 84 if given.get("dataset") == "mini_imagenet" else 32
    record = {"parameters": parameters.recorded(given),
              "dataset": {"name": "any", "height": height, "test": 10_000}}
    return {**record, "seed": given["seed"]} if cell.notebook in ("train", "few_shot") else record


@pytest.mark.parametrize("file, size", [
    pytest.param(file, size, id=f"{file.stem}, {size}")
    for file in BOOKS for size in plans.sizes(file)])
def test_a_cell_knows_the_record_of_its_run_and_no_other(file, size):
    _, cells = plans.read(file, size)
    assert cells
    for cell in cells:
        assert cell.matches(made(cell))
        assert cell.matches(made(cell, device="cuda"))
        if "more_seeds" in plans.defaults(cell.notebook):
            assert cell.matches(made(cell, more_seeds=[7, 8]))
    given = parameters.checked(**{**plans.defaults(cell.notebook), **cell.parameters})
    for name, value in given.items():
        if name == "test_every":
            assert cell.matches(made(cell, test_every=value + 1))
        elif name not in parameters.ASIDE:
            assert not cell.matches(made(cell, **{name: OTHER[type(value)](value)})), name
        elif name not in ("device", "more_seeds"):
            assert name not in made(cell)["parameters"]


def run_of(notebook, **given):
    return plans.RunSpec(notebook, {"seed": 0, **given})


@pytest.mark.parametrize("notebook, given, stands_for", [
    ("train", dict(dataset="cifar10", method="comixup"), dict(lr=0.12, epochs=300)),
    ("train", dict(dataset="cifar10", method="sage"), dict(lr=0.2)),
    ("train", {}, dict(epochs=2, width=8)),
    ("few_shot", dict(dataset="mini_imagenet"),
     dict(batch=16, padding=0, resize=96, epochs=100, optimizer="adam", lr=1e-4, weight_decay=5e-4,
          criterion="cross_entropy", schedule="plateau", choose="val_loss")),
    ("few_shot", dict(dataset="cifar_fs"), dict(setup="reference", batch=16, resize=37)),
    ("few_shot", {}, dict(batch=16, width=8, lr=1e-3)),
    ("few_shot", dict(dataset="mini_imagenet", setup="book"),
     dict(batch=100, padding=5, resize=0, epochs=100, optimizer="sgd", lr=0.2, weight_decay=1e-4,
          criterion="bce", schedule="steps", choose="val_accuracy")),
    ("few_shot", dict(dataset="cifar_fs", setup="book"), dict(batch=100, padding=2)),
    ("few_shot", dict(setup="book"), dict(batch=20, width=8)),
    ("step_time", dict(sides="all"), dict(sides=[[name, {}] for name in SUITED]))])
def test_what_zero_stands_for_is_the_same_run(notebook, given, stands_for):
    asked, had = run_of(notebook, **given), run_of(notebook, **{**given, **stands_for})
    assert asked.matches(made(had)) and had.matches(made(asked))


@pytest.mark.parametrize("notebook, given, other", [
    ("train", dict(dataset="cifar100", method="comixup"), dict(lr=0.12)),
    ("few_shot", dict(dataset="mini_imagenet"), dict(padding=2)),
    ("few_shot", dict(dataset="mini_imagenet"), dict(weight_decay=0)),
    ("few_shot", dict(dataset="mini_imagenet"), dict(resize=0)),
    ("few_shot", dict(dataset="mini_imagenet"), dict(setup="book"))])
def test_what_zero_does_not_stand_for_is_another_run(notebook, given, other):
    assert not run_of(notebook, **given).matches(made(run_of(notebook, **given, **other)))


@pytest.mark.parametrize("name, has", [
    ("table_1", lambda p: True),
    ("table_2", lambda p: (p["method"] in ("vanilla", "sage") and p["seed"] == 0
                           and p["setup"] == "book")),
    ("table_3", lambda p: p["seed"] == 0), ("table_6", lambda p: True),
    ("beyond", lambda p: p["method"] == "comixup"),
    ("table_4",
     lambda p: p["seed"] == 0 and p["method"] in ("vanilla", "mixup", "cutmix", "sage"))])
def test_the_books_own_records_are_known(name, has, tmp_path):
    """All that were there when this was written; more do no harm."""
    size = "laptop" if name in ("table_2", "table_6") else "underfit"
    _, cells = plans.read(PLANS / f"{name}.yml", size)
    left = worker.remaining(cells, records.RESULTS, tmp_path)
    assert not [cell.name for cell, _ in left if has(cell.parameters)]
    if name == "table_4":
        assert {what for _, what in left} <= {worker.RETRAIN}


@pytest.mark.parametrize("other", [{}, dict(shots=[5]), dict(episodes=600), dict(ways=6),
                                   dict(batch=50), dict(padding=3), dict(setup="reference"),
                                   dict(optimizer="adam"), dict(criterion="cross_entropy"),
                                   dict(choose="val_loss"), dict(resize=37)], ids=str)
def test_an_old_few_shot_record_counts_by_its_episodes(other):
    """And is one of the book's own set-up."""
    record = next(r for r in records.every(records.RESULTS, "few_shot")
                  if r["method"]["name"] == "vanilla")
    assert "shots" not in record["parameters"] and record["parameters"]["batch"] == 100
    cell = next(c for c in plans.read(PLANS / "table_2.yml", "laptop")[1]  # seed 0 is first
                if (c.parameters["method"], c.parameters["setup"]) == ("vanilla", "book"))
    assert "setup" not in record["parameters"]
    assert plans.recipe_name(record) == "few-shot, book set-up"
    run = plans.RunSpec(cell.notebook, {**cell.parameters, **other})
    assert run.matches(record) == (not other)


def test_a_record_without_parameters_is_of_no_other_run():
    cell = plans.read(PLANS / "table_1.yml", "tiny")[1][0]
    bare = {"parameters": {}, "seed": 0, "dataset": {"name": "shapes", "height": 32},
            "recipe": {"epochs": 12}, "model": {"name": "preactresnet18", "width": 8},
            "method": {"name": "vanilla", "settings": "default"}}
    assert not cell.matches(bare)


@pytest.fixture
def in_process(monkeypatch):
    """Attempts without a process and a kernel each: attempt(cell, tmp_path) -> the published file;
    and what was run."""
    ran = []

    def here(notebook, folder, given):
        ran.append(notebook)
        execute(notebook, folder, {k: v for k, v in given.items() if k in plans.defaults(notebook)})

    monkeypatch.setattr(worker, "execute", here)

    def attempt(cell, tmp_path):
        settings = {"root": "", "device": "cpu", "results": str(tmp_path / "results")}
        return worker.attempt(worker.prepare(cell, settings, tmp_path / "out"))
    return attempt, ran


CHOSEN = {"beyond": "vanilla", "comixup_rate": "comixup", "controls": "sage_controls",
          "published": "puzzlemix", "readings": "sage_controls", "schedule": "cutmix",
          "table_1": "comixup", "table_2": "vanilla", "table_3": "sage", "table_4": "mixup",
          "table_6": None, "table_7": "sage", "transformer": "sage_attention"}


@pytest.mark.parametrize("file", BOOKS, ids=lambda file: file.stem)
def test_every_plan_of_the_book_runs_tiny_and_then_nothing_is_left(file, in_process, tmp_path):
    """One cell of each, the last of its method, as the sweep runs it; then the sweep itself finds
    nothing to do."""
    attempt, ran = in_process
    method, out = CHOSEN[file.stem], tmp_path / "out"
    _, cells = plans.read(file, "tiny")
    cell = [c for c in cells if c.parameters.get("method") == method][-1]
    place, said = attempt(cell, tmp_path), []
    assert ran == [cell.notebook, *([cell.then] if cell.then else [])] and records.read(place)
    only = [(name, str(value)) for name, value in cell.parameters.items()]
    assert sweep.run(file, "tiny", results=tmp_path / "results", out=out, only=only,
                     say=said.append) == []
    assert said[0].endswith("1 cells, 1 done, 0 to run") and len(said) == 1


@pytest.mark.parametrize("setup", few_shot_setups.SETUPS)
def test_a_few_shot_cell_that_ran_is_done_the_next_time(setup, tmp_path):
    asked = command(PLANS / "table_2.yml", tmp_path, "--only", "method=vanilla",
                    f"setup={setup}")
    asked[asked.index("small")] = "tiny"
    for said in ("0 done, 1 to run", "1 done, 0 to run"):
        ended = subprocess.run(asked, capture_output=True, text=True, cwd=TOP, timeout=HANGS)
        assert ended.returncode == 0 and said in ended.stdout, ended.stdout + ended.stderr
    assert len(attempts(tmp_path)) == 1


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
    assert third.returncode == 0 and "4 done, 0 to run" in third.stdout
    assert len(attempts(tmp_path)) == 4
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("*.json")}
    for record in four_records(tmp_path):
        assert record["parameters"]["epochs"] == 1 and record["dataset"]["train"] == 200


def test_a_cell_that_fails_leaves_its_notebook_and_a_line_and_the_others_go_on(plan, tmp_path):
    text = PLAN.replace("[vanilla, mixup]}", "[vanilla, mixup], options: [{}, {alpha: -1}]}")
    ended = swept(plan(text), tmp_path, "--only", "seed=0")
    assert ended.returncode == 1 and "[1/4 done" in ended.stdout
    assert "vanilla has no option 'alpha'" in ended.stdout
    said = "failed (ValueError: Mixup: alpha is -1; it must be a number from 0 to 100; see "
    assert said in ended.stdout
    done = {r["method"]["name"] for r in records.every(tmp_path / "results")}
    assert done == {"vanilla", "mixup"}
    failed = [p for p in attempts(tmp_path) if (p / "error.txt").exists()]
    assert len(failed) == 2
    assert all(len((p / "error.txt").read_text().splitlines()) == 1 for p in failed)
    assert all("train.ipynb" in [f.name for f in p.iterdir()] for p in failed)


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_driver_loses_nothing_and_leaves_nothing_running(signal_, plan, tmp_path):
    file = plan(epochs=6)
    driver = subprocess.Popen(command(file, tmp_path), cwd=TOP, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    wait(lambda: list((tmp_path / "out").glob("checkpoints/*.pt")))
    assert sum("ipykernel" in what for what in alive(tmp_path).values()) >= 1
    driver.send_signal(signal_)
    assert driver.wait(HANGS) == (130 if signal_ == signal.SIGINT else -9)
    wait(lambda: not alive(tmp_path))
    begun = len(attempts(tmp_path))
    saved = list((tmp_path / "out").glob("checkpoints/*.pt"))
    ended = swept(file, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = four_records(tmp_path)
    assert len(attempts(tmp_path)) >= begun + 1 and saved
    assert not list((tmp_path / "out").glob("checkpoints/*.pt"))
    assert all(len(r["curve"]) == 6 for r in found) and not alive(tmp_path)


def test_a_killed_attempt_is_tried_again(plan, tmp_path):
    file = plan(epochs=4)
    asked = command(file, tmp_path, "--only", "seed=0")
    driver = subprocess.Popen(asked, cwd=TOP, stdout=subprocess.PIPE, text=True)
    wait(lambda: list((tmp_path / "out").glob("checkpoints/*.pt")))
    os.kill(next(p for p, what in alive(tmp_path).items() if "sagelib.bench.sweep.worker" in what),
            signal.SIGKILL)
    said, _ = driver.communicate(timeout=HANGS)
    assert driver.returncode == 0 and "was killed; it is tried again" in said
    assert len(records.every(tmp_path / "results")) == 2 and len(attempts(tmp_path)) == 3
    wait(lambda: not alive(tmp_path))


def test_two_sweeps_in_one_folder_are_refused(plan, tmp_path):
    with sweep.alone(tmp_path / "out"):
        ended = swept(plan(), tmp_path)
    assert ended.returncode == 2 and "another sweep works in" in ended.stderr
    assert not attempts(tmp_path)


def test_of_two_attempts_the_first_to_publish_counts(tmp_path):
    made = json.loads(next((records.RESULTS / "cifar10").rglob("*.json")).read_text())
    for folder in ("one", "two"):
        records.write({**made, "finished": folder}, tmp_path / folder)
    one, two = (next((tmp_path / folder).rglob("*.json")) for folder in ("one", "two"))
    place = publish(one, tmp_path / "results")
    assert publish(two, tmp_path / "results") == place and records.read(place)["finished"] == "one"


def test_the_executed_notebook_is_beside_its_record_without_folders_or_images(plan, tmp_path):
    assert swept(plan(), tmp_path, "--only", "seed=0", "method=mixup").returncode == 0
    record, = (tmp_path / "results").rglob("*.json")
    text = record.with_suffix(".ipynb").read_text()
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    assert str(tmp_path) not in text and str(TOP) not in text and '"papermill"' not in text
    assert all(c["execution_count"] for c in cells)
    drawn = ["".join(c["source"]) for c in cells
             if any("image/png" in o.get("data", {}) for o in c["outputs"])]
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
    names = [r["name"] for r in record["rows"]]
    assert names[:3] == ["two vanilla steps", "vanilla", "sage, u 0.5"]
    assert "1 done, 0 to run" in swept(plan(text), tmp_path).stdout


def test_the_time_left_goes_by_what_finished_cells_took():
    def cell(method, seed):
        return plans.RunSpec(
            "train", dict(dataset="cifar10", model="preactresnet18", method=method, seed=seed))
    cells = {(m, s): cell(m, s) for m in ("vanilla", "comixup") for s in (0, 1)}
    view = SweepProgress(cells.values(), lambda line: None)
    view.started(cells["vanilla", 0])
    assert view.left() == ""
    view.since[cells["vanilla", 0].name] -= 600
    view.done(cells["vanilla", 0])
    # minutes, by units and thousands of images
    expected = 10 + 2 * 10 * (6 * 50 + 10) / (3 * 50 + 10)
    assert view.left() == f", {expected:.0f} min left"
    view.started(cells["comixup", 0])
    view.since[cells["comixup", 0].name] -= 1200
    view.done(cells["comixup", 0])
    assert view.left() == ", 30 min left"  # 10 for vanilla, 20 for Co-Mixup, as its own first took
    view.started(cells["vanilla", 1])
    view.started(cells["comixup", 1])
    view.since[cells["comixup", 1].name] -= 600
    assert view.left() == ", 10 min left"  # ten minutes of each, two at a time


FOLLOWED = PLAN + """
then: robustness
sizes:
  small: {then: {images: 50, pgd_steps: 1, pgd_images: 10, corruption_images: 10, severities: [5]}}
"""


def without_evaluations(place):
    """What a record's file holds, but for its evaluations, which are taken out of the file."""
    record = {k: v for k, v in json.loads(place.read_text()).items() if k != "evaluations"}
    place.write_text(json.dumps(record))
    return record


def test_from_a_fresh_clone_one_command_leads_to_the_evaluation(plan, in_process, tmp_path, capsys):
    """The record is there, the weights are not: the network is trained again, the record stays."""
    attempt, _ = in_process
    cell = next(c for c in plans.read(plan(FOLLOWED), "small")[1]
                if (c.parameters["method"], c.parameters["seed"]) == ("vanilla", 1))
    first = attempt(plans.RunSpec(cell.notebook, cell.parameters), tmp_path)
    before = first.read_text()
    shutil.rmtree(tmp_path / "out")
    asked = command(plan(FOLLOWED), tmp_path, "--only", "seed=1", "method=vanilla")[3:]
    assert sweep.main([*asked, "--dry-run"]) == 0
    assert "(trains again: its weights are not here)" in capsys.readouterr().out
    ended = swept(plan(FOLLOWED), tmp_path, "--only", "seed=1", "method=vanilla")
    assert ended.returncode == 0, ended.stderr
    assert "1 of them trained again, since their weights" in ended.stdout, ended.stderr
    evaluation, = records.read(first)["evaluations"]
    assert evaluation["parameters"]["images"] == 50 and "perturbed" in evaluation["results"]
    assert "network" not in evaluation  # on the same machine the same network comes out
    assert without_evaluations(first) == json.loads(before)
    assert list((tmp_path / "results").rglob("*.json")) == [first]


def test_a_network_that_comes_out_otherwise_is_evaluated_beside_the_record_and_says_so(
        plan, in_process, tmp_path):
    """The record is of other hardware, and older than one of the method's options: another name,
    the same run."""
    attempt, ran = in_process
    cell = plans.read(plan(FOLLOWED), "small")[1][3]
    made = attempt(plans.RunSpec(cell.notebook, cell.parameters), tmp_path)
    elsewhere = json.loads(made.read_text())
    elsewhere["curve"][0]["train_loss"] += 1e-3
    elsewhere |= {"run": "0123abcd",
                  "method": {k: v for k, v in elsewhere["method"].items() if k != "per_image"}}
    made.unlink()
    first = records.write(elsewhere, tmp_path / "results")
    shutil.rmtree(tmp_path / "out")
    ran.clear()
    assert attempt(cell, tmp_path) == first and ran == ["train", "robustness"]
    # with the weights here, nothing is trained
    for again in (["train", "robustness"], ["robustness"]):
        assert ran == again
        evaluation, = records.read(first)["evaluations"]
        network = evaluation["network"]
        assert network["final"] == {k: elsewhere["final"][k] for k in ("accuracy", "loss")}
        assert network["finished"] >= elsewhere["finished"]
        assert network["hardware"] == elsewhere["hardware"]
        assert without_evaluations(first) == elsewhere
        ran.clear()
        attempt(cell, tmp_path)
    assert list((tmp_path / "results").rglob("*.json")) == [first]
    assert worker.remaining([cell], tmp_path / "results", tmp_path / "out") == []
    asked = {**cell.then_parameters, "l2": 1.0}
    more = plans.RunSpec(cell.notebook, cell.parameters, cell.then, asked)
    left = worker.remaining([more], tmp_path / "results", tmp_path / "out")
    assert left == [(more, worker.EVALUATE)]


KILL = """
import os, signal, sys

def watch(event, args):  # as Python is about to put the finished record into its place
    if event == "os.link" and str(args[1]).startswith(os.environ["PUBLISHED"]):
        for process in (os.getppid(), os.getpid()):
            os.kill(process, signal.SIGKILL)

if "sagelib.bench.sweep.worker" in sys.orig_argv:
    sys.addaudithook(watch)
"""


def test_a_run_whose_attempt_is_killed_just_before_its_publication_is_not_trained_again(
        plan, tmp_path, capsys):
    file, only = plan(), ("--only", "seed=0", "method=vanilla")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(KILL)
    path = os.pathsep.join(filter(None, [str(tmp_path / "hook"), os.environ.get("PYTHONPATH")]))
    killed = subprocess.run(
        command(file, tmp_path, *only), cwd=TOP, capture_output=True, timeout=HANGS,
        env={**os.environ, "PYTHONPATH": path, "PUBLISHED": str(tmp_path / "results")})
    assert killed.returncode == -signal.SIGKILL and not list((tmp_path / "results").rglob("*.json"))
    left, = (tmp_path / "out").glob("attempts/*/*/results/**/*.json")
    before = left.read_text()
    assert sweep.main([*command(file, tmp_path, *only, "--dry-run")[3:]]) == 0
    assert "an earlier attempt finished: it is published" in capsys.readouterr().out
    said = []
    assert sweep.run(file, "small", results=tmp_path / "results", out=tmp_path / "out",
                     say=said.append, only=[("seed", "0"), ("method", "vanilla")]) == []
    assert said[0].startswith("published: 1 ") and said[1].endswith("1 cells, 1 done, 0 to run")
    assert len(said) == 2
    record, = (tmp_path / "results").rglob("*.json")
    assert record.read_text() == before and record.with_suffix(".ipynb").exists()
    assert len(attempts(tmp_path)) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP],
                         ids=errno.errorcode.get)
def test_without_locks_a_sweep_says_so_and_goes_on(number, tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", failing(number))
    said = []
    with sweep.alone(tmp_path / "out", said.append):
        assert len(said) == 1
        assert f"without locks ({os.strerror(number)}): start no other sweep" in said[0]


def test_as_many_cells_at_a_time_as_the_process_has_cores_for(plan, tmp_path, monkeypatch):
    asked, usable = [], {0, 1, 2, 3}
    monkeypatch.setattr(sweep, "run_local", lambda *words: asked.append(words[-2:]) or [])
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for how in ({}, {"threads": 2}, {"threads": 8}, {"jobs": 3}):
        sweep.run(plan(), "small", results=tmp_path / "results", out=tmp_path / "out", **how)
    assert asked == [(4, 1), (2, 2), (1, 8), (3, 1)]


def test_errors_are_said_in_a_line():
    assert short(ValueError("\x1b[31mtop\x1b[0m\n\nValueError: lr is 0\n")) == "ValueError: lr is 0"
    assert short(KeyError()) == "KeyError"
