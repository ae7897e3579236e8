"""The experiment notebooks as users run them: every method, own images, what they refuse.

Through papermill where the kernel matters; many small runs as the same cells in this process,
without a kernel each.
"""
import copy
import json

import numpy as np
import papermill
import pytest
import torch
from experiments import execute
from networks import network_for

from sagelib import methods, models
from sagelib.bench import plans, records, schema, timing, weights
from sagelib.catalog import names, suited

REFUSED = ValueError, FileExistsError, papermill.PapermillExecutionError


def run(folder, kernel=False, **parameters):
    execute("train", folder, {"progress": False, "epochs": 1, "width": 4, **parameters}, kernel)
    return records.every(folder / "runs")


@pytest.mark.parametrize("method", names(methods))
def test_every_method_runs_by_name(method, tmp_path):
    record, = run(tmp_path, kernel=method == "sage", method=method, train_images=100, seed=2,
                  model=network_for(method))
    assert record["method"]["name"] == method and record["seed"] == 2 and len(record["curve"]) == 1
    assert record["dataset"]["train"] == 100 and record["model"]["width"] == 4
    assert record["kind"].startswith("shortened: epochs 1")
    assert record["parameters"]["train_images"] == 100
    assert record["final"]["train_accuracy"] in range(101)  # of 100 images
    assert not list((tmp_path / "runs/checkpoints").iterdir())
    assert record["method"]["settings"] == "default" and record["parameters"]["settings"] == "paper"
    assert schema.correct_images(record) is not None


def test_a_folder_of_ones_own_images(image_folder, tmp_path):
    record, = run(tmp_path, dataset="folder", root=str(image_folder), method="sage", batch=4,
                  options={"fraction": 0.5})
    assert record["dataset"] == dict(name="folder", classes=2, train=6, test=4, height=12, width=16)
    assert record["method"]["fraction"] == 0.5


@pytest.mark.parametrize("parameters, message", [
    (dict(method="cutmixx"), "did you mean 'cutmix'"), (dict(dataset="imagenet"), "known: cifar10"),
    (dict(model="vgg"), "unknown model 'vgg'"), (dict(settings="best"), "known: default, paper"),
    (dict(options={"eta": 1}), "has no option 'eta'"),
    (dict(precision="fp8"), "unknown precision 'fp8'"),
    (dict(schedule="onecycle"), "unknown schedule 'onecycle'; known: steps, cosine, one_cycle")])
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
    # what papermill makes of -p more_seeds [1]
    both = run(tmp_path, train_images=100, seed=0, more_seeds="[1]")
    both = [r for r in both if r["seconds"]["together"] == 2]
    assert [r["seed"] for r in both] == [0, 1] and alone["seconds"]["together"] == 1
    assert both[1]["run"] == alone["run"] and both[0]["run"] != alone["run"]
    assert both[1]["final"] == alone["final"] and both[1]["parameters"]["more_seeds"] == [1]


@pytest.mark.parametrize("notebook, parameters, message", [
    ("train", dict(epochs="abc"),
     "epochs is 'abc'; it must be a whole number of at least 0, .* -p epochs"),
    ("few_shot", dict(shots="five"), "shots is 'five'; .* -y 'shots: "),
    ("robustness", dict(severities=1), "severities is 1; .* -y 'severities: "),
    ("attack_readings", dict(images="few"), "images is 'few'; it must be a whole number "),
    ("search_time", dict(sizes="big"), "sizes is 'big'; .* -y 'sizes: "),
    ("step_time", dict(sides="sage"), "sides is 'sage'; .* -y 'sides: "),
])
def test_a_parameter_of_the_wrong_type_is_one_clear_error_in_every_notebook(
        notebook, parameters, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        execute(notebook, tmp_path, parameters)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_options_given_as_text_are_options(tmp_path):
    record, = run(tmp_path, train_images=50, options="{'fraction': 0.5, \"guided\": False}")
    assert record["method"]["fraction"] == 0.5 and record["method"]["guided"] is False
    assert record["parameters"]["options"] == {"fraction": 0.5, "guided": False}


def test_a_run_that_ended_between_training_and_record_is_recorded_from_its_checkpoint(
        tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(**parts):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(records, "make", stop)
        with pytest.raises(Stopped):
            run(tmp_path, method="vanilla", train_images=100)
    checkpoint, = (tmp_path / "runs/checkpoints").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("sagelib.train.step.Run.begin", stop)  # nothing is left to train
        record, = run(tmp_path, method="vanilla", train_images=100)
    assert not checkpoint.exists()  # the record is there
    assert schema.correct_images(record) is not None


def benchmark(name, folder, **parameters):
    execute(name, folder, parameters, kernel=True)
    record, = records.timings(folder / "runs", name)
    assert record["kind"] == "timing" and record["commit"] and record["hardware"]["threads"] == 1
    assert records.every(folder / "runs") == []
    for row in record["rows"]:
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    return record


def test_the_search_is_timed_against_loops_on_the_same_draws(tmp_path):
    record = benchmark("search_time", tmp_path, pairs=6, sizes=[12, 16], fractions=[0.02, 1.0],
                       rounds=2)
    rows = {(r["name"], r["size"], r["fraction"]): r for r in record["rows"]}
    assert len(rows) == 12 and rows["library", 12, 0.02]["shifts"] == int(0.02 * 23 * 23)
    assert rows["library", 16, 1.0]["form"] == "table"
    assert rows["library", 16, 0.02]["form"] == "slices"
    assert (
        rows["library", 16, 1.0]["ratio"]["high"] == 1 < rows["canvas", 16, 1.0]["ratio"]["median"])


def test_every_methods_step_is_timed_over_two_vanilla_steps(tmp_path):
    record = benchmark("step_time", tmp_path, sides="all", width=4, batch=6, rounds=1)
    rows = {r["name"]: r for r in record["rows"]}
    assert set(suited(methods, models, "preactresnet18")) < set(rows)
    assert rows["two vanilla steps"]["ratio"]["median"] == 1
    assert rows["sage"]["launches"] > rows["vanilla"]["launches"] and "part: search" in rows
    assert 0 < record["parameters"]["bf16_agreement"]["correlation"] <= 1


def test_steps_are_timed_on_the_weights_of_a_run_or_with_more_classes(tmp_path):
    trained, = run(tmp_path, method="puzzlemix", train_images=100)
    kept, = (tmp_path / "runs/networks").rglob("*.pt")
    asked = dict(batch=4, rounds=1, sides=[["puzzlemix", {}]])
    execute("step_time", tmp_path, {**asked, "weights_file": str(kept)})
    execute("step_time", tmp_path, {**asked, "width": 4, "classes": 20})
    of_run, wide = (r["parameters"] for r in records.timings(tmp_path / "runs", "step_time"))
    if of_run["trained"] is None:  # they finished in the same second
        of_run, wide = wide, of_run
    rows = [row for r in records.timings(tmp_path / "runs", "step_time") for row in r["rows"]]
    both, = (row for row in rows if "mix_over_untrained" in row)
    alone, untrained = (both[k]["median"] for k in ("mix_seconds", "untrained_mix_seconds"))
    assert both["name"] == "puzzlemix"
    assert both["mix_over_untrained"]["median"] == pytest.approx(alone / untrained)  # of one round
    assert (of_run["trained"], of_run["classes"]) == (trained["run"], 10)
    assert of_run["network"] == wide["network"] == {"name": "preactresnet18", "width": 4}
    assert (wide["trained"], wide["classes"]) == (None, 20)
    setups = sorted(timing.setup(r) for r in records.timings(tmp_path / "runs", "step_time"))
    assert setups[0].endswith(", 20 classes")
    assert setups[1].endswith(f", weights and images of run {trained['run']}")
    for classes, matching in ((0, []), (20, [wide])):  # a plan's run is not one on trained weights
        planned = plans.RunSpec("step_time", {**asked, "width": 4, "classes": classes})
        assert [r["parameters"] for r in records.timings(tmp_path / "runs", "step_time")
                if planned.matches(r)] == matching
    with pytest.raises(ValueError, match="classes is 5; these images have 10, so it must be 0 or"):
        execute("step_time", tmp_path, {**asked, "classes": 5})
    state = torch.load(kept, weights_only=True)
    torch.save({"net": state["net"]}, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"bare\.pt does not say which run its weights are of"):
        execute("step_time", tmp_path, {**asked, "weights_file": str(tmp_path / "bare.pt")})


def few_shot(folder, kernel=False, **parameters):
    execute("few_shot", folder,
            {"progress": False, "width": 4, "epochs": 2, "episodes": 40, **parameters}, kernel)
    return records.every(folder / "runs", "few_shot")


@pytest.mark.parametrize("method", ["sage", "manifold_mixup"])
def test_a_few_shot_run_becomes_a_record(method, tmp_path):
    record, = few_shot(tmp_path, kernel=method == "sage", method=method, shots=[1, 3])
    assert records.every(tmp_path / "runs") == [] and record["method"]["name"] == method
    assert record["dataset"] == dict(name="shapes_fs", classes=16, train=960, val_classes=6,
                                     test_classes=6, height=32, width=32)
    assert [(e["shots"], e["distance"]) for e in record["episodes"]] == [
        (1, "cosine"), (1, "euclidean"), (3, "cosine"), (3, "euclidean")]
    best = min(record["curve"], key=lambda e: e["val_loss"])
    assert len(record["curve"]) == 2 and record["chosen"] == dict(
        epoch=best["epoch"], val_accuracy=best["val_accuracy"], val_loss=best["val_loss"],
        exam=dict(ways=5, shots=3, queries=15, episodes=40, seed=0, distance="cosine",
                  by="val_loss"))
    assert record["method"]["loss"] == "cross_entropy"
    assert record["recipe"] == dict(
        epochs=2, optimizer="adam", lr=1e-3, weight_decay=5e-4, schedule="plateau", decay=0.1,
        patience=9, monitor="val_loss", rewind=True, last_lr=0.01, precision="fp32",
        channels_last=False, compile=False, batch=16, padding=0, flip=True, resize=37)
    assert list((tmp_path / "runs/networks/few_shot").rglob("*.pt"))
    assert not list(tmp_path.rglob("checkpoints/*.pt"))
    with pytest.raises(REFUSED, match="this run has a record"):
        few_shot(tmp_path, method=method, shots=[1, 3])
    if method == "sage":
        # another exam chooses, so it is another run
        few_shot(tmp_path, method=method, shots=[1, 2])


def test_the_books_own_few_shot_set_up_is_what_it_was(tmp_path):
    """Its run id is that of the notebook before there were set-ups, with the same parameters."""
    record, = few_shot(tmp_path, method="vanilla", setup="book")
    assert record["run"] == "f4f07deb" and record["method"]["loss"] == "bce"
    best = max(e["val_accuracy"] for e in record["curve"])
    assert record["chosen"]["val_accuracy"] == best and "by" not in record["chosen"]["exam"]
    assert record["recipe"] == dict(
        epochs=2, lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-4, milestones=[1 / 3, 2 / 3],
        decay=0.1, precision="fp32", channels_last=False, compile=False, batch=20, padding=2,
        flip=True)


def test_a_few_shot_run_on_a_plateau_ends_early_and_goes_back_to_the_best_epoch(tmp_path):
    """At this rate the loss rises at once: each epoch without a lower one is a tenth of the rate,
    twice, and the network of the lowest loss is the one that is evaluated."""
    record, = few_shot(tmp_path, method="vanilla", epochs=12, patience=0, lr=0.03)
    curve = record["curve"]
    best = min(range(len(curve)), key=lambda k: curve[k]["val_loss"])
    assert record["chosen"]["epoch"] == best and len(curve) < 12
    falls = [k for k in range(1, len(curve)) if curve[k]["lr"] < curve[k - 1]["lr"]]
    lowest = [min(e["val_loss"] for e in curve[:k]) for k in falls]
    assert falls and all(curve[k - 1]["val_loss"] > low for k, low in zip(falls, lowest,
                                                                          strict=True))
    assert {round(e["lr"] / 0.03, 9) for e in curve} == {1, 0.1}


@pytest.mark.parametrize("notebook, parameters, message", [
    (few_shot, dict(setup="theirs"), "unknown setup 'theirs'; known: reference, book"),
    (few_shot, dict(choose="val"), "unknown choose 'val'; known: val_accuracy, val_loss"),
    (few_shot, dict(optimizer="adam_w"), "unknown optimizer 'adam_w'; known: sgd, adam, adamw"),
    (few_shot, dict(resize=20), "a crop of 32 x 32 does not fit into images of 20 x 20"),
    (few_shot, dict(criterion="mse"), "criterion is 'mse'; it must be one of 'bce', 'cross_"),
    (few_shot, dict(patience=-1), "patience is -1; it must be a whole number of at least 0"),
    (few_shot, dict(dataset="shapes"),
     "no few-shot data set: its test classes are those it trains on"),
    (few_shot, dict(queries=60), "needs 61 images of a class"),
    (few_shot, dict(ways=7), "here are 6: take fewer"),
    (few_shot, dict(distances=["l1"]), r"distances are \['l1'\]; known: cosine"),
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
        asked = dict(record=str(file), images=50, pgd_steps=2, corruption_images=20, severities=[5])
        execute("robustness", tmp_path, {**asked, **parameters}, kernel)

    evaluate(kernel=True)
    added, = records.read(file)["evaluations"]
    assert {k: v for k, v in records.read(file).items() if k != "evaluations"} == record
    assert set(added["results"]["perturbed"]) >= {"pixels, clamped", "normalised, not clamped"}
    assert len(added["results"]["corruptions"]) == 15
    assert added["parameters"]["corruption_images"] == 20
    assert added["parameters"]["images"] == added["parameters"]["pgd_images"] == 50
    with pytest.raises(REFUSED, match="holds this evaluation already"):
        evaluate()
    np.save(tmp_path / "labels.npy", np.tile(np.arange(100, dtype=np.uint8), 50))
    with pytest.raises(REFUSED, match=r"labels\.npy has class indices from 0 to 99, this test set "
                                      r"has 10 classes"):
        evaluate(published=str(tmp_path))
    final = record["final"]
    better = {**record, "final": {"accuracy": final["accuracy"] + 5, "loss": final["loss"]}}
    other = records.write(better, tmp_path / "others")
    kept, = (tmp_path / "runs/networks").rglob("*.pt")
    state = torch.load(kept, weights_only=True)["net"]
    # weights without the record of their training, and with a wrong one
    for text in (None, json.dumps(better)):
        torch.save({"net": state, "record": text}, tmp_path / "weights.pt")
        with pytest.raises(REFUSED, match="do not belong together"):
            evaluate(record=str(other), weights_file=str(tmp_path / "weights.pt"))
    assert len(records.read(file)["evaluations"]) == 1 and "evaluations" not in records.read(other)
    assert "network" not in added


def test_an_evaluation_of_a_network_that_was_trained_again_says_so(tmp_path):
    record, = run(tmp_path, method="vanilla", train_images=200)
    kept, = (tmp_path / "runs/networks").rglob("*.pt")
    assert weights.record(kept) == record
    first = copy.deepcopy(record)  # as other hardware had trained it
    first["curve"][0]["train_loss"] += 1e-3
    file = records.write(first, tmp_path / "published")
    asked = dict(images=50, pgd_steps=1, pgd_images=10, corruption_images=10, severities="[5]")
    execute("robustness", tmp_path, {"record": str(file), **asked})
    added, = records.read(file)["evaluations"]
    assert {k: v for k, v in records.read(file).items() if k != "evaluations"} == first
    assert added["network"]["final"]["accuracy"] == record["final"]["accuracy"]
    assert added["network"]["finished"] == record["finished"]
    assert added["network"]["hardware"] == record["hardware"]
    stranger = records.write({**first, "seed": 5, "run": "00000000"}, tmp_path / "published")
    with pytest.raises(ValueError, match="the record of run 00000000: they do not belong together"):
        execute("robustness", tmp_path,
                {"record": str(stranger), "weights_file": str(kept), **asked})


def test_readings_of_the_attacks_go_into_the_record_of_each_network_once(tmp_path):
    for method, seed in (("vanilla", 0), ("vanilla", 1), ("sage", 0)):
        run(tmp_path, method=method, seed=seed, train_images=100)
    asked = dict(dataset="shapes", images=30)
    execute("attack_readings", tmp_path, asked)
    found = {(r["method"]["name"], r["seed"]): r for r in records.every(tmp_path / "runs")}
    ids = {key: r["run"] for key, r in found.items()}
    attackers = {("vanilla", 0): ([ids["vanilla", 1]], [ids["sage", 0]]),
                 ("vanilla", 1): ([ids["vanilla", 0]], []),
                 ("sage", 0): ([ids["vanilla", 1]], [ids["vanilla", 0]])}
    for key, (another, several) in attackers.items():
        added, = found[key]["evaluations"]
        assert added["what"] == "attack_readings" and added["parameters"]["images"] == 30
        assert added["parameters"]["another"] == another
        assert added["parameters"]["several"] == several
        assert len(added["results"]["fgsm"]) == 6 * (2 + len(several))
    execute("attack_readings", tmp_path, asked)
    assert records.every(tmp_path / "runs") == [*found.values()]
    kept = next((tmp_path / "runs/networks").rglob("sage-*.pt"))
    state = torch.load(kept, weights_only=True)
    better = copy.deepcopy(found["sage", 0])
    better["final"]["accuracy"] += 5
    torch.save({**state, "record": json.dumps(better)}, kept)
    with pytest.raises(REFUSED, match="do not belong together"):
        execute("attack_readings", tmp_path, asked)
    with pytest.raises(REFUSED, match="has no network of wrn16_8 on shapes: train some"):
        execute("attack_readings", tmp_path, {**asked, "model": "wrn16_8"})
