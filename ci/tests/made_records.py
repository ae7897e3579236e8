"""Made sets of records: what the chapters and the scorecard must bear without failing.

`make(kind, folder)` writes a set: "none"; "today", the book's own; "paper", three seeds of every
run of Tables 1 to 7 at the paper's recipe whose means are the printed numbers; "against", the same
with every row turned round, so that the best method is the worst; "fourth_seed" and
"fifth_method", today's with one run more; "planned", today's with three seeds of every run of the
plans schedule, controls, readings and comixup_rate at size laptop.
"""

import copy
import functools
import itertools
import shutil
from unittest import mock

import numpy as np

from sagelib import catalog, methods
from sagelib.bench import few_shot_setups, parameters, plans, quantities, records, scorecard
from sagelib.bench.paper_recipe import WIDTH, learning_rate
from sagelib.evaluate import robustness
from sagelib.train import Recipe

KINDS = ("none", "today", "paper", "against", "fourth_seed", "fifth_method", "planned")
HARDWARE = {"device": "cuda", "gpu": "Tesla T4", "gpu_memory_gb": 15.0, "cpu": "a CPU", "cores": 4,
            "threads": 4}
STAMP = {"hardware": HARDWARE, "versions": {"python": "3.12", "torch": "2.11", "sagelib": "0.1.0"},
         "commit": None, "finished": "2027-01-01T00:00:00+00:00"}
STAMPED = mock.patch.object(records, "_stamp",
                            lambda parameters, device: {**STAMP, "parameters": parameters})


def make(kind, folder):
    """Write the set of this kind into a folder that is not there yet; returns the folder."""
    if kind in ("today", "fourth_seed", "fifth_method", "planned"):
        shutil.copytree(records.RESULTS, folder)
        if kind == "planned":
            for name in ("schedule", "controls", "readings", "comixup_rate"):
                planned(name, "laptop", folder)
        elif kind != "today":
            one_more(kind, folder)
        return folder
    folder.mkdir(parents=True)
    if kind != "none":
        tables = {k: turned(records.reported(k)) if kind == "against" else records.reported(k)
                  for k in range(1, 8)}
        with STAMPED:
            for record in (*trained(tables), *few_shots(tables[2]), *timings(tables[6])):
                records.write(record, folder)
    return folder


def shifts(method):
    """(seed, what is added to the mean): three seeds that add up to nothing, others for each
    method."""
    drawn = np.random.default_rng(catalog.names(methods).index(method)).normal(0, 0.1, 3)
    return list(enumerate((drawn - drawn.mean()).tolist()))


def turned(rows):
    """A table with its numbers in the opposite order of size: in each row, in Tables 3 and 7 in
    each column."""
    if "part" in rows[0]:
        columns = [k for k in rows[0] if k not in ("part", "setting")]
        return [
            dict(zip(rows[0], values, strict=True))
            for values in zip(*([r[k] for r in rows] for k in ("part", "setting")),
                              *(opposite([r[k] for r in rows]) for k in columns), strict=True)
        ]
    names = [k for k, v in rows[0].items() if isinstance(v, float)]
    return [{**row, **dict(zip(names, opposite([row[k] for k in names]), strict=True))}
            for row in rows]


def opposite(values):
    """The same values, the largest where the smallest was."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [values[order[len(values) - 1 - order.index(k)]] for k in range(len(values))]


def trained(tables):
    """The training records of Tables 1, 3 and 7, those of Table 1 with the evaluations of Tables 4
    and 5."""
    done = set()
    for cell in scorecard.cells({k: tables[k] for k in (1, 3, 7)}):
        run = (cell.dataset, cell.model, cell.method, str(cell.options))
        if run not in done:
            done.add(run)
            perturbed = None
            if cell.model == "preactresnet18" and not cell.options:
                perturbed = {row["perturbation"]: row.get(cell.method)
                             for row in tables[4 if cell.dataset == "cifar10" else 5]}
            yield from (training(cell, seed, shift, perturbed)
                        for seed, shift in shifts(cell.method))


def training(cell, seed, shift, perturbed):
    """A record of the paper's recipe with the cell's number."""
    accuracy = round(cell.reported + shift, 2)
    lr = learning_rate(cell.dataset, cell.method)
    curve = [
        {"epoch": e, "lr": lr, "train_loss": 0.1, "seconds": 60.0, "test_accuracy": accuracy,
         "test_loss": 1.0}
        for e in range(3)
    ]
    made = records.make(
        dataset=dict(name=cell.dataset, classes=int(cell.dataset[5:]), train=50_000, test=10_000,
                     height=32, width=32),
        model=dict(name=cell.model, width=WIDTH[cell.model], parameters=1),
        seed=seed,
        curve=curve,
        method=dict(name=cell.method, settings="paper", loss="bce", **cell.options),
        recipe=dict(Recipe(lr=lr).described(), batch=100, padding=2, flip=True),
        parameters=dict(settings="paper", options=cell.options, lr=lr, model=cell.model,
                        method=cell.method, seed=seed, width=0),
        correct=np.arange(10_000) < round(100 * accuracy),
    )
    if perturbed:
        one = {p: perturbed[p] + shift for p in robustness.PERTURBATIONS}
        results = {"clean": accuracy, "perturbed": {c.name: one for c in robustness.CONVENTIONS},
                   **copy.deepcopy(evaluation_of_today())}
        made["evaluations"] = [
            {"what": "robustness", "results": results, **STAMP,
             "parameters": {**quantities.BUDGET, "images": 10_000, "seed": 0}}
        ]
    return made


@functools.cache
def evaluation_of_today():
    """What an evaluation holds besides the paper's perturbations: as in the first record that has
    one."""
    every = (records.evaluation(r, "robustness") for r in records.every(records.RESULTS))
    found = next(filter(None, every))
    return {k: v for k, v in found.items() if k not in ("clean", "perturbed")}


def few_shots(table):
    """Few-shot records of Table 2's methods, in both set-ups of its plan."""
    for row, (setup, values) in itertools.product(table, few_shot_setups.SETUPS.items()):
        recipe = {k: values[k] for k in ("lr", "batch")}
        for method in [k for k, v in row.items() if isinstance(v, float)]:
            for seed, shift in shifts(method):
                episodes = [
                    dict(ways=5, shots=shots, queries=15, episodes=1000, distance=d, seed=seed,
                         interval=0.5, accuracy=row[method] + shift - 15 * (shots == 1))
                    for shots in (1, 5)
                    for d in ("cosine", "euclidean")
                ]
                asked = dict(
                    dataset=dict(name=row["dataset"], classes=64, train=38_400, val_classes=16,
                                 test_classes=20, height=84, width=84),
                    model=dict(name=row["model"], width=64, parameters=1),
                    seed=seed,
                    method=dict(name=method, settings="paper", loss=values["criterion"]),
                    recipe=dict(epochs=100, **recipe),
                )
                curve = [dict(epoch=0, train_loss=1.0, seconds=1.0, val_accuracy=70.0,
                              lr=values["lr"], val_loss=0.8)]
                exam = {} if setup == "book" else {"by": values["choose"]}
                yield records.make_few_shot(**asked, exam=exam, curve=curve, episodes=episodes,
                                            parameters=dict(settings="paper", width=0, setup=setup))


def timings(table):
    """A record of step times for each network of Table 6."""
    for row in table:
        model, names = row["model"], [k for k, v in row.items() if isinstance(v, float)]
        rows = [{"name": m, "seconds": at(row[m] / 1000), "ratio": at(row[m] / row["vanilla"] / 2)}
                for m in names]
        both = {"name": "two vanilla steps", "seconds": at(row["vanilla"] / 500), "ratio": at(1.0)}
        yield records.make_timing(
            what="step_time",
            rows=[both, *rows],
            parameters=dict(model=model, width=WIDTH[model], batch=100, precision="fp32", threads=4,
                            sides=[[m, {}] for m in names]),
        )


def at(seconds):
    return {"median": seconds, "low": 0.99 * seconds, "high": 1.01 * seconds}


def planned(name, size, folder):
    """Write a record of each run of a plan that has none in the folder yet, as good as its place in
    the plan."""
    _, cells = plans.read(plans.PLANS / f"{name}.yml", size)
    labels = list(dict.fromkeys(str(_without_seed(cell)) for cell in cells))
    for cell in cells:
        if any(cell.matches(record) for record in records.every(folder)):
            continue
        given = parameters.checked(**{**plans.defaults(cell.notebook), **cell.parameters})
        settled = parameters.settled(cell.notebook, given)
        recipe = Recipe(epochs=settled["epochs"], lr=settled["lr"], schedule=given["schedule"],
                        channels_last=given["channels_last"])
        place = labels.index(str(_without_seed(cell)))
        accuracy = round(70 + place + 0.1 * ((5 * place + given["seed"]) % 7), 2)
        entry = {"lr": recipe.lr, "train_loss": 0.1, "seconds": 5.0}
        curve = [{"epoch": e, **entry} for e in range(recipe.epochs)]
        curve[-1] |= {"test_accuracy": accuracy, "test_loss": 1.0}
        with STAMPED:
            records.write(records.make(
                dataset=dict(name="cifar10", classes=10, train=given["train_images"], test=10_000,
                             height=32, width=32),
                model=dict(name=given["model"], width=given["width"], parameters=1),
                method=dict(name=given["method"], settings="paper", loss="bce", **given["options"]),
                recipe=dict(recipe.described(), batch=100, padding=2, flip=True),
                seed=given["seed"], curve=curve, parameters=parameters.recorded(given),
                correct=np.arange(10_000) < round(100 * accuracy), train_accuracy=99.5), folder)


def _without_seed(cell):
    return {k: v for k, v in cell.parameters.items() if k != "seed"}


def one_more(kind, folder):
    """Add a run to today's: a fourth seed of SAGE and vanilla, or a fifth method with
    evaluations."""
    here = [r for r in records.every(folder) if r["kind"].startswith("shortened: epochs 30")]
    tuned = {r["method"]["name"]: r for r in here
             if not r["parameters"]["options"] and r["seed"] == 0}
    if kind == "fourth_seed":
        chosen = [(tuned[m], seed) for m in ("sage", "vanilla") for seed in (2, 3)]
        changed = [{**r, "seed": seed, "run": f"{seed:08x}"} for r, seed in chosen]
    else:
        with_evaluation = next(r for r in here if r.get("evaluations"))
        changed = [
            {**tuned["puzzlemix"], "seed": 7, "run": "00000007",
             "evaluations": with_evaluation["evaluations"]}
        ]
    for record in changed:
        records.write(record, folder)
