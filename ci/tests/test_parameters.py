"""Parameters of the experiments: each has a type, literals may be text, and 0 is what the notebook
says."""

import ast
import inspect
import re

import nbformat
import pytest
import yaml

from sagelib import catalog, datasets, methods, models
from sagelib.bench import parameters, plans
from sagelib.bench.paper_recipe import DATASETS, PAPER
from sagelib.bench.paths import EXPERIMENTS, PLANS
from sagelib.data.batches import Batches

SUITED = catalog.suited(methods, models, "preactresnet18")  # without those of a transformer
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.ipynb"))


def test_every_default_that_is_the_papers_agrees_with_its_recipe():
    usual = parameters.settled("train", {**plans.defaults("train"), "dataset": "cifar10"})
    images = {catalog.stated(datasets, name, "IMAGES")["train"] for name in DATASETS}
    batches = inspect.signature(Batches).parameters
    losses = {catalog.load(methods, name).options()["loss"] for name in catalog.names(methods)}
    size = yaml.safe_load((PLANS / "sizes.yml").read_text())["paper"]["parameters"]
    found = [usual | {"train_images": images.pop(), "loss": losses.pop()}, size]
    found.append(
        {k: batches[{"batch": "size"}.get(k, k)].default for k in ("batch", "padding", "flip")})
    assert not images and not losses
    for part in found:
        same = PAPER.keys() & part.keys()
        assert {k: part[k] for k in same} == {k: PAPER[k] for k in same}
    others = {"milestones", "decay", "compile"}  # no parameters of the notebook
    assert PAPER.keys() - found[0].keys() == others


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_notebook_is_checked_and_its_default_passes(name):
    usual = plans.defaults(name)
    assert parameters.checked(**usual) == usual
    cells = [c.source for c in nbformat.read(EXPERIMENTS / f"{name}.ipynb", 4).cells
             if c.cell_type == "code"]
    calls = [n for n in ast.walk(ast.parse("\n".join(cells))) if isinstance(n, ast.Call)]
    (call,) = (n for n in calls if ast.unparse(n.func) == "parameters.checked")
    assert {k.arg: ast.unparse(k.value) for k in call.keywords} == {k: k for k in usual}


@pytest.mark.parametrize("name, text, value", [
    ("more_seeds", "[1,2]", [1, 2]), ("more_seeds", "(1, 2)", [1, 2]), ("more_seeds", " [] ", []),
    ("options", "{'u': 1.0}", {"u": 1.0}), ("options", '{"guided": false}', {"guided": False}),
    ("options", "{}", {}), ("shots", "[1]", [1]), ("distances", "['cosine']", ["cosine"]),
    ("severities", "[1, 5]", [1, 5]), ("sizes", "[32, 64]", [32, 64]),
    ("fractions", "[0.1, 1]", [0.1, 1]), ("sides", "all", "all"),
    ("sides", "[['sage', {'u': 1}]]", [["sage", {"u": 1}]]), ("dataset", "[1]", "[1]")])
def test_the_text_of_a_literal_is_its_value(name, text, value):
    assert parameters.checked(**{name: text}) == parameters.checked(**{name: value})
    assert parameters.checked(**{name: value}) == {name: value}


@pytest.mark.parametrize("name, value, message", [
    ("more_seeds", "1,2 and 3",
     "a list of whole numbers of at least 0, given to papermill as -y 'more_seeds: [1, 2]'"),
    ("more_seeds", "[1, 'a']", "more_seeds is \"[1, 'a']\"; it must be a list"),
    ("more_seeds", 1, "more_seeds is 1; "), ("more_seeds", [True], "more_seeds is [True]; "),
    ("more_seeds", [-1], "more_seeds is [-1]; "),
    ("options", "{fraction: 0.1}",
     "a mapping of options, given to papermill as -y 'options: {fraction: 0.1}'"),
    ("options", "fraction=0.1", "options is 'fraction=0.1'; "),
    ("options", [1], "options is [1]; "),
    ("options", {"u": float("nan")}, "options is {'u': nan}; "),
    ("shots", [], "a list of one or more whole numbers"), ("severities", [6], "from 1 to 5"),
    ("fractions", [0], "numbers above 0"), ("distances", "cosine", "a list of one or more texts"),
    ("sides", "every",
     "or all, given to papermill as -y 'sides: [[vanilla, {}], [sage, {fraction: 0.1}]]'"),
    ("sides", [["sage"]], "sides is [['sage']]; "),
    ("epochs", "abc", "epochs is 'abc'; it must be a whole number"),
    ("epochs", 2.0, "epochs is 2.0; "), ("epochs", True, "epochs is True; "),
    ("seed", -1, "of at least 0"), ("lr", float("inf"), "lr is inf; "),
    ("lr", "fast", "lr is 'fast'; it must be a number, given to papermill as -p lr 0.1"),
    ("flip", 1, "flip is 1; it must be True or False"),
    ("root", 2024, "root is 2024; it must be a text, given to papermill as -r root 2024")])
def test_a_value_of_another_type_is_one_line_that_names_the_parameter(name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parameters.checked(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds", [[0], [1, 1], "[2, 2]"])
def test_a_seed_is_given_once(seeds):
    with pytest.raises(ValueError, match="is there twice; give each seed once"):
        parameters.checked(seed=0, more_seeds=seeds)


def settled(experiment, **given):
    facts = {k: given.pop(k) for k in ("height", "test") if k in given}
    return parameters.settled(experiment, {**plans.defaults(experiment), **given}, **facts)


ROBUSTNESS = dict(images=100, autoattack_images=500, published="files", test=10_000)
SETTLED = [
    ("train", {}, dict(epochs=2, width=8, lr=0.2)),
    ("train", dict(dataset="cifar10", method="comixup"), dict(epochs=300, width=0, lr=0.12)),
    ("train", dict(dataset="cifar100", method="comixup"), dict(lr=0.2)),
    ("train", dict(dataset="cifar10", method="comixup", settings="default"), dict(lr=0.2)),
    ("train", dict(dataset="cifar10", lr=0.5, epochs=3), dict(lr=0.5)),
    ("few_shot", dict(height=32), dict(epochs=6, width=8, batch=16, lr=1e-3, padding=0, resize=37)),
    ("few_shot", dict(height=32, setup="book"),
     dict(epochs=6, width=8, batch=20, lr=0.2, padding=2, resize=0)),
    ("few_shot", dict(dataset="mini_imagenet", height=84),
     dict(epochs=100, width=0, batch=16, padding=0, resize=96, optimizer="adam", lr=1e-4,
          weight_decay=5e-4, criterion="cross_entropy", schedule="plateau", choose="val_loss")),
    ("few_shot", dict(dataset="mini_imagenet", height=84, setup="book"),
     dict(epochs=100, width=0, batch=100, padding=5, resize=0, optimizer="sgd", lr=0.2,
          weight_decay=1e-4, criterion="bce", schedule="steps", choose="val_accuracy")),
    ("few_shot", dict(padding=0, height=84, setup="book", weight_decay=0, lr=0.1, resize=90),
     dict(padding=0, weight_decay=0, lr=0.1, resize=90)),
    ("step_time", dict(sides="all"), dict(sides=[[name, {}] for name in SUITED])),
    ("robustness", ROBUSTNESS,
     dict(images=100, pgd_images=100, autoattack_images=100, corruption_images=100,
          linf=8 / 255, published=True)),
    ("robustness", dict(test=10_000), dict(corruption_images=10_000)),
    ("attack_readings", dict(test=10_000), dict(images=10_000, linf=8 / 255)),
]


@pytest.mark.parametrize("experiment, given, want", SETTLED)
def test_what_zero_stands_for(experiment, given, want):
    found = settled(experiment, **given)
    assert {k: found[k] for k in want} == want


EVALUATIONS = ["robustness", "attack_readings"]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_all_test_images_are_a_number_of_a_test_set(name):
    with pytest.raises(ValueError, match=f"{name} with images 0 needs `test`"):
        settled(name, images=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EVALUATIONS])
def test_settled_parameters_stay(name):
    once = settled(name, test=10_000, height=32)
    assert parameters.settled(name, once, height=32) == once


@pytest.mark.parametrize("method, dataset, model, want", [
    ("vanilla", "cifar10", "preactresnet18", "paper"),
    ("comixup", "cifar100", "preactresnet18", "paper"), ("sage", "cifar100", "wrn16_8", "paper"),
    ("sage", "cifar10", "wrn16_8", "default"), ("sage", "shapes", "preactresnet18", "default"),
    ("vanilla", "folder", "preactresnet18", "default"),
    ("sage", "mini_imagenet", "resnet12", "default"), ("mixup", "cifar_fs", "resnet12", "default")])
def test_settings_are_called_the_papers_where_the_paper_states_them(method, dataset, model, want):
    asked = dict(method=method, dataset=dataset, model=model)
    assert parameters.settings_name({**asked, "settings": "paper"}) == want
    assert parameters.settings_name({**asked, "settings": "default"}) == "default"


def test_what_a_record_keeps_holds_no_place_of_this_machine():
    places = {"root", "results", "checkpoints", "networks", "graph", "progress"}
    usual = plans.defaults("train")
    assert parameters.recorded(usual) == {k: v for k, v in usual.items() if k not in places}
