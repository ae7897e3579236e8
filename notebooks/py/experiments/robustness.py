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
# # Experiment: how robust is a trained network?
#
# The paper's three perturbations under every convention for the budget, PGD, the fifteen common
# corruptions and calibration, for one network that [the train notebook](train.ipynb) trained. The
# results are added to that run's record.
#
# ```
# papermill notebooks/experiments/robustness.ipynb OUT.ipynb -p root DATA \
#     -p record runs/cifar10/preactresnet18/sage-seed0-….json -y 'severities: [1, 3, 5]'
# ```
#
# As it stands, without a record, it trains a small network on the built-in shapes first.

# %% tags=["parameters"]
record = ""              # a record that the train notebook wrote; empty: train a small network on the shapes
networks = "runs/networks"  # where the train notebook put the weights
weights_file = ""        # the weights themselves, if they are elsewhere
root = ""                # folder of the data set
images = 0               # test images; 0: all, or 300 for the small network
linf = 8.0               # the paper's budgets: l-infinity, in grey levels of 255
l2 = 0.5                 # and l2 and the variance of the noise, where black to white is 1
variance = 0.01
pgd_steps = 20
pgd_images = 200         # PGD costs `pgd_steps` passes: on how many images
autoattack_images = 0    # AutoAttack costs thousands of passes; needs the extra [attacks]
severities = [1, 2, 3, 4, 5]  # of the corruptions; others as in -y 'severities: [1, 3, 5]'
corruption_images = 0    # 0: all; there are 75 passes of them, one for each kind and severity
published = ""           # folder of CIFAR-10-C or CIFAR-100-C, if you have it
batch = 500
seed = 0
device = ""
results = "runs"         # for the small network

# %% [markdown]
# ## The network and its record
#
# The weights must give the accuracy that the record of their training states: that is checked
# below, before anything else is believed. Where the weights were lost and the same run was trained
# again, on other hardware its curve differs a little. Then the evaluation says so: it carries the
# final accuracy, hardware and versions of the network that it is about.

# %%
# NBVAL_IGNORE_OUTPUT
from pathlib import Path

import torch

from sagelib import catalog, datasets, show
from sagelib.bench import parameters, records, weights
from sagelib.bench.small_run import small_run
from sagelib.data.batches import Batches
from sagelib.evaluate import calibration, corruptions, robustness

given = parameters.checked(
    record=record, networks=networks, weights_file=weights_file, root=root, images=images, linf=linf, l2=l2,
    variance=variance, pgd_steps=pgd_steps, pgd_images=pgd_images, autoattack_images=autoattack_images,
    severities=severities, corruption_images=corruption_images, published=published, batch=batch, seed=seed,
    device=device, results=results)
device, severities = device or ("cuda" if torch.cuda.is_available() else "cpu"), given["severities"]
if not record:
    given["images"] = images or 300
    record = small_run(results, networks, seed=seed)

run = records.read(record)
_, whole = catalog.load(datasets, run["dataset"]["name"], root=root or None)
settled = parameters.deciding("robustness", given, test=len(whole))
test = (whole.subset(settled["images"], seed) if given["images"] else whole).to(device)
if any(e["what"] == "robustness" and e["parameters"] == settled for e in run.get("evaluations", [])):
    raise ValueError(f"{record} holds this evaluation already; a result is never replaced: change a parameter, or stop here")
file = weights_file or records.path(run, networks).with_suffix(".pt")
net, trained = weights.network(run, file).to(device).eval(), weights.record(file) or run
own = robustness.evaluate(net, whole.to(device), (), batch=batch)["clean"]
again = weights.retrained(run, trained)
weights.check_accuracy(trained, own)
published_images = corruptions.published(published, whole) if published else None  # refused if made from other images
show.table(["run", "method", "model", "width", "recipe", "network"],
           [[run["run"], run["method"]["name"], run["model"]["name"], run["model"]["width"],
             run["kind"], "trained again" if again else "the record's own"]])

# %% [markdown]
# ## The paper's perturbations
#
# Four conventions, since the paper names none: budgets in pixels of [0, 1] or in normalised values,
# pictures clamped to real ones or not. One forward and one backward pass serve both attacks in all
# of them.

# %%
# NBVAL_IGNORE_OUTPUT
perturbed = robustness.evaluate(net, test, linf=linf / 255, l2=l2, variance=variance, batch=batch, seed=seed)
show.table(["accuracy, %", "clean", *robustness.PERTURBATIONS],
           [[c.name, perturbed["clean"], *perturbed[c.name].values()] for c in robustness.CONVENTIONS])

# %% [markdown]
# **What to see.** The same budgets, counted in normalised values, are several times smaller in
# pixels, and the network fares much better. FGSM is one step; PGD takes many, and is what a network
# has to stand up to before it is called robust.

# %%
# NBVAL_IGNORE_OUTPUT
few = test.subset(settled["pgd_images"], seed)
pgd = {norm: robustness.evaluate_pgd(net, few, epsilon=budget, step=budget / 4, steps=pgd_steps, norm=norm, seed=seed)
       for norm, budget in (("linf", linf / 255), ("l2", l2))}
attacked = None
if autoattack_images:
    few = test.subset(settled["autoattack_images"], seed)
    seen = robustness.AttackSpace(net, test.mean, test.std, robustness.CONVENTIONS[0])
    changed = robustness.autoattack(seen, few.images.float() / 255, few.labels, linf / 255)
    attacked = 100 * float((seen(changed).argmax(1) == few.labels).float().mean())
show.table(["PGD, clamped pixels", "accuracy, %"], [*pgd.items(), ["AutoAttack, linf", "not run" if attacked is None else attacked]])

# %% [markdown]
# ## Common corruptions
#
# Fifteen kinds at five severities: noise, blur, weather, digital. The mean over all of them is the
# figure that CIFAR-10-C is cited for; here the images are made on the device, and frost is grown,
# not photographed. With `published`, the published arrays are evaluated too, once they are known to
# be made from this test set.

# %%
# NBVAL_IGNORE_OUTPUT
import dataclasses


def accuracy(pixels, labels):
    changed = dataclasses.replace(test, images=pixels.to(device), labels=labels.to(device), masks=None)
    return 100 * float(torch.cat([net(x).argmax(1) == y.argmax(1) for x, y in Batches(changed, batch)]).float().mean())


draw, some = torch.Generator(device).manual_seed(seed), test.subset(settled["corruption_images"], seed)
with torch.no_grad():
    found = {name: [accuracy(torch.cat([corruptions.corrupt(part, name, s, draw) for part in some.images.split(batch)]),
                             some.labels) for s in severities] for name in corruptions.NAMES}
    files = {name: [accuracy(*published_images(name, s)) for s in severities] for name in corruptions.NAMES} if published else None
mean = sum(map(sum, found.values())) / sum(map(len, found.values()))
show.table(["accuracy, %", *(f"severity {s}" for s in severities)],
           [*([name, *row] for name, row in found.items()), ["**mean of all**", mean]])

# %% [markdown]
# ## Calibration
#
# Is the network right as often as it says? Each bar is a bin of confidence; on the diagonal the two
# agree.

# %% mystnb={"image": {"alt": "Reliability diagram: accuracy against confidence in fifteen bins, with the diagonal of perfect agreement."}}
# NBVAL_IGNORE_OUTPUT
with torch.no_grad():
    calibrated = calibration.scores(*calibration.logits_of(net, Batches(test, batch)))
show.reliability(calibrated["bins"], f"ECE {100 * calibrated['ece']:.1f} %, NLL {calibrated['nll']:.2f} nats")

# %% [markdown]
# ## Into the record
#
# Under the name "robustness", with the parameters that decide it. The same evaluation is not added
# twice.

# %%
# NBVAL_IGNORE_OUTPUT
outcome = {"clean": perturbed.pop("clean"), "perturbed": perturbed, "pgd": pgd, "autoattack": attacked,
           "corruptions": found, "mean_corruption_accuracy": mean, "published_corruptions": files, "calibration": calibrated}
added = records.add_evaluation(record, what="robustness", results=outcome, parameters=settled, device=device, network=again)
assert records.evaluation(added, "robustness")["clean"] == outcome["clean"]
show.table(["record", "evaluations"], [[Path(record).name, len(added["evaluations"])]])
