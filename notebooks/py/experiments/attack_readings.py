# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     notebook_metadata_filter: kernelspec,jupytext
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Experiment: what did the attacks mean?
#
# The paper describes the attacks of Tables 4 and 5 in two sentences. Read as usual, as attacks on
# the network itself, they take away far more accuracy than the tables print. This experiment
# evaluates trained networks under every combination of what the sentences leave open:
#
# - **whose gradient**: that of the network that is evaluated (*own*), that of *another* one, here
#   trained without mixing and with another seed, or the mean over *several* networks, here the
#   other methods' with the same seed;
# - **which label** the attack leads away from: the *true* one, or the one that the attacked network
#   *predicted*;
# - **the unit** of a budget: *pixels* from 0 to 1, values from −1 to 1, or *normalised* values;
# - **the length** of FGM's step: that of each *image*, that of the whole *batch*, or *none*, where
#   the gradient is multiplied by the budget and not divided by its length.
#
# All networks of the folder `networks` that one recipe trained on one data set form a group. The
# results are added to their records; [chapter 9](../09_out_of_distribution.ipynb) compares them
# with the paper.
#
# ```
# papermill notebooks/experiments/attack_readings.ipynb OUT.ipynb -p dataset cifar10 -p root DATA \
#     -p networks runs/networks -p results runs
# ```
#
# As it stands, without a data set, it trains three small networks on the built-in shapes first.

# %% tags=["parameters"]
dataset = ""             # of sagelib/datasets; empty: train three small networks on the shapes
model = "preactresnet18"
root = ""                # folder of the data set
networks = "runs/networks"  # where the train notebook put the weights
results = "runs"         # where it put the records
images = 0               # test images; 0: all, or 200 for the small networks
linf = 8.0               # the paper's budgets: l-infinity, in grey levels of 255
l2 = 0.5                 # and l2 and the variance of the noise, where black to white is 1
variance = 0.01
batch = 100              # decides where the images of a batch share a length
seed = 0                 # of the images and of the noise
device = ""

# %% [markdown]
# ## The networks
#
# The weights must give the accuracy that their record states.

# %%
# NBVAL_IGNORE_OUTPUT
import statistics

import torch

from sagelib import catalog, datasets, evaluate, show
from sagelib.bench import parameters, records, summary, weights
from sagelib.bench.small_run import small_run
from sagelib.data.batches import Batches
from sagelib.evaluate import attack_readings

given = parameters.checked(
    dataset=dataset, model=model, root=root, networks=networks, results=results, images=images,
    linf=linf, l2=l2, variance=variance, batch=batch, seed=seed, device=device)
device = device or ("cuda" if torch.cuda.is_available() else "cpu")
if not dataset:
    given |= {"dataset": "shapes", "model": "preactresnet18", "images": images or 200}
    for method, train_seed in (("vanilla", 0), ("vanilla", 1), ("sage", 0)):
        small_run(results, networks, method, train_seed, epochs=4)

_, whole = catalog.load(datasets, given["dataset"], root=root or None)
settled = parameters.deciding("attack_readings", given, test=len(whole))
test = (whole.subset(settled["images"], seed) if given["images"] else whole).to(device)
stored = weights.stored(networks)
rows = {name: (name, {}) for name in (trained["method"]["name"] for trained in stored.values())}
groups = summary.runs_by_row(stored.values(), given["dataset"], given["model"], rows)
if not groups:
    raise ValueError(f"{networks} has no network of {given['model']} on {given['dataset']}: train "
                     "some with the train notebook, or set `networks` to its folder")


def attackers(trained, runs):
    """The runs whose networks attack: vanilla of another seed, other methods of the same seed."""
    other_seeds = [r for r in runs.get("vanilla", []) if r["seed"] != trained["seed"]]
    # the next seed, or the lowest where there is no next
    other_seeds.sort(key=lambda r: (r["seed"] < trained["seed"], r["seed"]))
    same_seed = [r for name, rs in runs.items() for r in rs
                 if r["seed"] == trained["seed"] and name != trained["method"]["name"]]
    return other_seeds[:1], same_seed


attacked = [(trained, *attackers(trained, runs)) for runs in groups.values()
            for rs in runs.values() for trained in rs]
files = {trained["run"]: file for file, trained in stored.items()}
nets = {trained["run"]: weights.network(trained, files[trained["run"]]).to(device).eval()
        for trained, *_ in attacked}
batches = Batches(whole.to(device), 500)
for trained, *_ in attacked:
    weights.check_accuracy(trained, evaluate.scores(nets[trained["run"]], batches)["accuracy"])
show.table(["method", "seed", "run", "another", "several"],
           [[trained["method"]["name"], trained["seed"], trained["run"],
             ", ".join(f"{r['method']['name']}, seed {r['seed']}" for r in another), len(several)]
            for trained, another, several in attacked])

# %% [markdown]
# ## Every reading of each network, into its record
#
# One forward and two backward passes for each attacking network serve all budgets. Each changed
# image needs a forward pass of its own. An evaluation that a record holds already is not repeated.

# %%
# NBVAL_IGNORE_OUTPUT
found = {}
for trained, another, several in attacked:
    file = records.path(trained, results)
    asked = settled | {"another": [r["run"] for r in another],
                       "several": [r["run"] for r in several]}
    record = records.read(file)
    if records.evaluation(record, "attack_readings", **asked) is None:
        outcome = attack_readings.evaluate(
            nets[trained["run"]], test, *(nets[r["run"]] for r in another),
            several=[nets[r["run"]] for r in several], linf=settled["linf"], l2=l2,
            variance=variance, batch=batch, seed=seed)
        record = records.add_evaluation(
            file, what="attack_readings", results=outcome, parameters=asked, device=device,
            network=weights.retrained(record, trained))
    found[trained["run"]] = records.evaluation(record, "attack_readings", **asked)

accuracies = {}  # perturbation, reading -> a number for each network that has the attackers for it
for outcome in found.values():
    for kind in ("gaussian", "fgsm", "fgm"):
        for reading, accuracy in outcome[kind].items():
            accuracies.setdefault((kind, reading), []).append(accuracy)
on_clean = statistics.fmean(each["clean"] for each in found.values())
show.table(["perturbation", "reading", "mean", "lowest", "highest", "networks"],
           [[*key, statistics.fmean(values), min(values), max(values), len(values)]
            for key, values in accuracies.items()],
           f"Accuracy on {settled['images']} test images, %; clean: {on_clean:.2f}")

# %% [markdown]
# **What to see.** How much an attack harms depends on the reading far more than on the network: the
# same budget costs a few points or nearly all. An attack computed on another network harms less
# than one on the network itself, and one that leads away from the prediction does less where the
# prediction is wrong already.
