"""Records: valid, complete, never replaced; the numbers in them follow from the curve."""
import errno
import inspect
import json
import math
import os
import threading

import numpy as np
import pytest
from folders import failing

from sagelib.bench import records, schema
from sagelib.train import Recipe


@pytest.fixture
def parts():
    accuracy = [10, 50, 90, 60, 61, 62, 63, 64, 65, 66, 67, 68.5]
    curve = [{"epoch": e, "lr": 0.2, "train_loss": 0.3, "seconds": 2.0 + e, "test_accuracy": a,
              "test_loss": 1.0} for e, a in enumerate(accuracy)]
    recipe = {**Recipe().described(), "batch": 100, "padding": 2, "flip": True}
    return dict(
        dataset=dict(name="cifar10", classes=10, train=50_000, test=10_000, height=32, width=32),
        model=dict(name="preactresnet18", width=64, parameters=11_171_146),
        method=dict(name="sage", settings="paper", loss="bce", u=0.6),
        recipe=recipe, seed=3, curve=curve, parameters={"seed": 3})


def test_final_median_and_best_are_kept_apart(parts):
    record = records.make(**parts)
    assert record["final"]["accuracy"] == 68.5
    assert record["best_on_test"] == {"accuracy": 90, "epoch": 2}
    assert record["median_last10"] == 64.5
    assert record["seconds"] == {"training": sum(2.0 + e for e in range(12)), "epoch": 8.0,
                                 "together": 1}
    assert record["versions"]["torch"] and record["hardware"]["cores"] >= 1


def test_written_and_read_back_at_the_path_of_its_key(parts, tmp_path):
    record = records.make(**parts)
    file = records.write(record, tmp_path)
    assert file == tmp_path / f"cifar10/preactresnet18/sage-seed3-{record['run']}.json"
    assert records.read(file) == record and records.every(tmp_path) == [record]
    assert len(list(tmp_path.rglob("*"))) == 3  # two folders, one file, nothing temporary


def test_a_result_is_never_replaced(parts, tmp_path):
    file = records.write(records.make(**parts), tmp_path)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="a result is never replaced"):
        records.write(records.make(**parts), tmp_path)
    assert file.read_bytes() == before and len(list(file.parent.iterdir())) == 1


def test_the_run_id_changes_with_what_is_asked_and_nothing_else(parts):
    one = records.make(**parts)["run"]
    assert records.make(**{**parts, "parameters": {"results": "elsewhere"}})["run"] == one
    assert records.make(**{**parts, "seed": 4})["run"] != one
    assert records.make(**{**parts, "method": {**parts["method"], "u": 0.5}})["run"] != one


def test_only_the_papers_recipe_is_called_the_papers(parts):
    assert records.make(**parts)["kind"] == "paper"
    short = records.make(**{**parts, "recipe": {**parts["recipe"], "epochs": 3}})
    assert short["kind"] == "shortened: epochs 3 (paper 300)"
    narrow = records.make(**{**parts, "model": {**parts["model"], "width": 16}})
    assert "width 16 (paper 64)" in narrow["kind"]
    slim = records.make(
        **{**parts, "model": {"name": "wrn16_8", "width": 2, "parameters": 700_000}})
    assert slim["kind"] == "shortened: width 2 (paper 8)"
    comixup = {**parts["method"], "name": "comixup"}
    gentle = {**parts, "method": comixup, "recipe": {**parts["recipe"], "lr": 0.12}}
    assert records.make(**gentle)["kind"] == "paper"  # appendix B: on CIFAR-10 it diverges with 0.2
    assert records.make(**{**parts, "method": comixup})["kind"] == "changed: lr 0.2 (paper 0.12)"
    other = records.make(**{**parts, "dataset": {**parts["dataset"], "name": "shapes"}})
    assert "not one of the paper's" in other["kind"]


@pytest.mark.parametrize("change, kind", [
    (dict(epochs=600), "longer: epochs 600 (paper 300)"),
    (dict(precision="bf16"), "changed: precision bf16 (paper fp32)"),
    (dict(epochs=100, precision="bf16", compile=True),
     "shortened: epochs 100 (paper 300); precision bf16 (paper fp32); compiled True (paper False)"),
    (dict(milestones=[0.5, 0.75]), "changed: milestones 0.5 and 0.75 (paper 0.333 and 0.667)"),
    (dict(schedule="one_cycle"), "changed: schedule one_cycle (paper steps)"),
    (dict(channels_last=True), "paper")
])
def test_what_else_decides_a_result_is_named_and_longer_is_not_shortened(change, kind, parts):
    assert records.make(**{**parts, "recipe": {**parts["recipe"], **change}})["kind"] == kind
    usual = records.make(**{**parts, "method": {**parts["method"], "settings": "default"}})
    assert usual["kind"] == "changed: method settings default, not the paper's"


def test_a_schedule_without_milestones_is_recorded_without_them(parts):
    recipe = {**Recipe(schedule="cosine").described(), "batch": 100, "padding": 2, "flip": True}
    assert "milestones" not in recipe and "decay" not in recipe
    assert records.make(**{**parts, "recipe": recipe})["kind"] == (
        "changed: schedule cosine (paper steps)")
    with pytest.raises(ValueError, match=r"recipe.*milestones"):
        records.make(**{**parts, "recipe": {k: v for k, v in recipe.items() if k != "schedule"}})


def test_epochs_that_were_not_evaluated_do_not_count(parts):
    curve = [{k: v for k, v in e.items() if e["epoch"] in (2, 4, 7, 11) or not k.startswith("test")}
             for e in parts["curve"]]
    record = records.make(**{**parts, "curve": curve})
    assert record["curve"] == curve and record["final"]["accuracy"] == 68.5
    assert record["median_last10"] == 66.25  # of 90, 61, 64 and 68.5: (64 + 68.5) / 2
    assert record["best_on_test"] == {"accuracy": 90, "epoch": 2}


def test_a_record_of_an_older_rule_is_told_apart_by_todays(parts, tmp_path):
    longer = records.make(**{**parts, "recipe": {**parts["recipe"], "epochs": 600}})
    file = records.write({**longer, "kind": "shortened: epochs 600 (paper 300)"}, tmp_path)
    assert records.read(file) == longer
    records.add_evaluation(file, what="robustness", results={}, parameters={})
    # the file stays as it was
    assert json.loads(file.read_text())["kind"] == "shortened: epochs 600 (paper 300)"


@pytest.mark.parametrize("spoil, place", [
    (lambda r: r.pop("seed"), "seed"), (lambda r: r.update(extra=1), "extra"),
    (lambda r: r["final"].update(accuracy=101), "final/accuracy"),
    (lambda r: r.update(curve=[]), "curve"),
    (lambda r: r["curve"][4].update(seconds=-1), "curve/4/seconds"),
    (lambda r: r["method"].update(name="A B"), "name"),
    (lambda r: r["final"].update(accuracy="68"), "final/accuracy"),
    (lambda r: r["curve"][3].update(test_loss=math.nan),
     "at curve/3/test_loss: nan is no number that JSON has"),
    (lambda r: r["parameters"].update(options={"u": -math.inf}), "at parameters/options/u: -inf"),
    (lambda r: r["final"].update(correct="AAAA"),
     "at final/correct: 0 of 10000 images are right, .* 68.5 %"),
])
def test_a_wrong_record_is_refused_with_the_place(spoil, place, parts, tmp_path):
    record = records.make(**parts)
    spoil(record)
    with pytest.raises(ValueError, match=place):
        records.write(record, tmp_path)
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"bad\.json is no valid record"):
        records.every(tmp_path)


def test_every_committed_record_is_valid():
    for record in records.every(records.RESULTS):
        assert records.path(record, records.RESULTS).exists()


def test_evaluations_are_added_and_never_replaced(parts, tmp_path):
    record = records.make(**parts)
    file = records.write(record, tmp_path)
    records.add_evaluation(file, what="robustness", results={"clean": 1.0}, parameters={"seed": 0})
    with pytest.raises(ValueError, match="has the evaluation 'robustness' with these parameters"):
        records.add_evaluation(file, what="robustness", results={"clean": 2.0},
                               parameters={"seed": 0})
    records.add_evaluation(file, what="robustness", results={"clean": 3.0}, parameters={"seed": 1})
    found = records.read(file)
    assert {k: v for k, v in found.items() if k != "evaluations"} == record
    assert [e["results"]["clean"] for e in found["evaluations"]] == [1.0, 3.0]
    assert records.evaluation(found, "robustness") == {"clean": 3.0}
    assert records.evaluation(found, "other") is None
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_evaluations_hold_no_nan(parts, tmp_path):
    file = records.write(records.make(**parts), tmp_path)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="at evaluations/0/results/perturbed/1: inf is no number "
                                         "that JSON has"):
        records.add_evaluation(file, what="robustness", results={"perturbed": [1.0, math.inf]},
                               parameters={})
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_test_loss_that_is_not_finite_is_null_and_the_result_is_kept(parts, tmp_path):
    parts["curve"][2]["test_loss"], parts["curve"][-1]["test_loss"] = math.nan, math.inf
    file = records.write(records.make(**parts), tmp_path)
    found = json.loads(file.read_text(),
                       parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["curve"][2]["test_loss"] is None is found["final"]["loss"]
    assert found["final"]["accuracy"] == 68.5
    assert records.read(file) == found


def test_which_images_are_right_is_kept_to_the_bit(parts, tmp_path):
    right = np.random.default_rng(0).permutation(10_000) < 6850
    record = records.make(**parts, correct=right)
    assert len(record["final"]["correct"]) < 1700 and record["run"] == records.make(**parts)["run"]
    assert np.array_equal(schema.correct_images(records.read(records.write(record, tmp_path))),
                          right)
    assert schema.correct_images(records.make(**parts)) is None
    with pytest.raises(ValueError, match=r"6851 of 10000 images are right, .* 68\.5 %"):
        records.make(**parts, correct=np.arange(10_000) < 6851)


# file systems without hard links, or without locks

NO_LINKS = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_without_hard_links_a_record_is_written_whole_and_never_replaced(
        number, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(number))
    record = records.make(**parts)
    file = records.write(record, tmp_path)
    assert records.read(file) == record
    with pytest.raises(FileExistsError, match="a result is never replaced"):
        records.write({**record, "finished": "later"}, tmp_path)
    assert records.read(file) == record and [p.name for p in file.parent.iterdir()] == [file.name]


def test_without_hard_links_one_of_many_writers_wins_and_the_others_know(
        parts, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.ENOSYS))
    record, ended, begin = records.make(**parts), [], threading.Barrier(8)

    def write(k):
        begin.wait()
        try:
            ended.append((k, records.write({**record, "finished": str(k)}, tmp_path)))
        except (FileExistsError, BlockingIOError) as error:
            ended.append((k, error))

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner, file), = [(k, place) for k, place in ended if not isinstance(place, OSError)]
    assert len(ended) == 8 and records.read(file)["finished"] == str(winner)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_writer_that_was_killed_without_hard_links_leaves_a_claim_and_no_half_record(
        parts, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.ENOSYS))
    record = records.make(**parts)
    file = records.path(record, tmp_path)
    file.parent.mkdir(parents=True)
    claim = file.with_name(f".{file.name}.claim")
    claim.touch()
    with pytest.raises(BlockingIOError,
                       match=r"if none is, one was killed there: remove .*\.claim") as caught:
        records.write(record, tmp_path)
    assert "\n" not in str(caught.value) and not file.exists()
    claim.unlink()
    assert records.read(records.write(record, tmp_path)) == record


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF],
                         ids=errno.errorcode.get)
def test_without_locks_an_evaluation_is_added_with_a_warning(number, parts, tmp_path, monkeypatch):
    file = records.write(records.make(**parts), tmp_path)
    monkeypatch.setattr("fcntl.flock", failing(number))
    with pytest.warns(UserWarning,
                      match="a file system without locks .*: let one process at a time") as caught:
        add = inspect.unwrap(records.add_evaluation)  # the checks of types would be its caller
        add(file, what="robustness", results={"clean": 1.0}, parameters={"seed": 0})
    assert "\n" not in str(caught[0].message) and caught[0].filename == __file__
    assert records.evaluation(records.read(file), "robustness") == {"clean": 1.0}


def test_cores_are_those_that_the_process_may_use(parts):
    usable = os.sched_getaffinity(0)
    one = min(usable)
    os.sched_setaffinity(0, {one})
    try:
        assert records.make(**parts)["hardware"]["cores"] == 1
    finally:
        os.sched_setaffinity(0, usable)
    assert records.make(**parts)["hardware"]["cores"] == len(usable)
