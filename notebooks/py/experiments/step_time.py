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
# # Experiment: what a training step costs
#
# One step of each method: crop, mix, pass through the network, update. SAGE needs two passes, so
# that **two vanilla steps** are the yardstick; they are timed beside each method, in turn, in one
# run. As it stands this is a small run on a narrow network, which shows little but that it works.
# The numbers of the book come from
#
# ```
# papermill notebooks/experiments/step_time.ipynb OUT.ipynb -p width 64 -p batch 32 -p rounds 9 -p results book/results
# ```
#
# and on a GPU from the same command with `-p batch 100 -p precision bf16 -p channels_last True -p
# compile_network True`. Other methods and options are a list and go through `-y`: `-y 'sides:
# [[sage, {}], [sage, {fraction: 0.1}]]'`.
#
# The network is untrained and sees the built-in shapes; `-p classes 100` gives it as many classes
# as CIFAR-100 has. Some methods solve a problem for each batch, and how long that takes depends on
# the saliency maps. Their time on the maps of a trained network and on its own data is measured
# with
#
# ```
# papermill notebooks/experiments/step_time.ipynb OUT.ipynb -p root DATA \
#     -p weights_file runs/networks/….pt -y 'sides: [[puzzlemix, {}], [comixup, {}], [sage, {}]]'
# ```

# %% tags=["parameters"]
model = "preactresnet18"
width = 8                # channels of the first stage, or the network's own measure of width; 0: its own value, as in the paper
classes = 0              # of the network; 0: those of the images, 10 without a weights_file
weights_file = ""        # of a trained network: it decides model, width and data set
root = ""                # folder of that data set
batch = 20               # images in a batch; the paper has 100
sides = [["vanilla", {}], ["mixup", {}], ["cutmix", {}], ["sage", {}], ["sage", {"fraction": 1.0}],
         ["sage", {"reuse": 0}], ["sage_merged", {}]]  # methods and options; "all": every method, as it comes
rounds = 3               # each side has one turn a round
threads = 1              # of the CPU
precision = "fp32"       # or "bf16", "fp16"
channels_last = False
compile_network = False
compile_options = {}     # of inductor, as in -y 'compile_options: {combo_kernels: true}'
device = ""              # "cpu", "cuda", …; empty: a GPU if there is one
seed = 0
results = "runs"         # the record goes to results/timings/

# %%
import dataclasses

import matplotlib.pyplot as plt
import torch

from sagelib import catalog, datasets, methods, models, show
from sagelib.bench import parameters, records, timing, weights
from sagelib.data.batches import Batches
from sagelib.methods import sage
from sagelib.rearrange import best_offset
from sagelib.saliency import saliency, smooth
from sagelib.stored_grad import loss_with_stored_grad
from sagelib.train import Recipe, Run, fit_together

given = parameters.checked(model=model, width=width, classes=classes, root=root,
                           weights_file=weights_file, batch=batch, sides=sides, rounds=rounds,
                           threads=threads,
                           precision=precision, channels_last=channels_last,
                           compile_network=compile_network, compile_options=compile_options,
                           device=device, seed=seed, results=results)
trained = weights.record(weights_file) if weights_file else None
if weights_file and not trained:
    raise ValueError(f"{weights_file} does not say which run its weights are of: take a file that "
                     "the train notebook wrote")
if trained:
    given |= {"model": trained["model"]["name"], "width": trained["model"]["width"] or 0}
dataset = trained["dataset"]["name"] if trained else "shapes"
given = parameters.settled("step_time", given)
sides, model, width = given["sides"], given["model"], given["width"]
device = device or ("cuda" if torch.cuda.is_available() else "cpu")
torch.set_num_threads(threads)
# the same batch again and again: with the usual learning rate the network would know it by heart
recipe = Recipe(epochs=1, lr=1e-6, precision=precision, channels_last=channels_last,
                compile=compile_network, compile_options=given["compile_options"])
if trained:
    train = catalog.load(datasets, dataset, root=root or None)[0].subset(20 * batch, seed)
else:
    train = catalog.load(datasets, "shapes", train=20 * batch, test=10)[0]
if classes not in (0, len(train.classes)):
    if trained or classes < len(train.classes):
        raise ValueError(f"classes is {classes}; these images have {len(train.classes)}"
                         + ("" if trained else ", so it must be 0 or more than that"))
    # the labels are those of the images, one-hot among more classes
    more = [f"class {k}" for k in range(len(train.classes), classes)]
    train = dataclasses.replace(train, classes=[*train.classes, *more])
train, given["classes"] = train.to(device), len(train.classes)

# %% [markdown]
# ## A step
#
# `Run` is what `fit` trains with: it takes a batch by number, and its step is recorded as a CUDA
# graph where there is a GPU. Each side has a network of its own.

# %%
def run_of(name, options, from_file=bool(trained)):
    """A method's training run and a function that makes one of its steps."""
    torch.manual_seed(seed)
    shape = {"width": width} if width else {}
    net = catalog.load(models, model, classes=given["classes"], **shape)
    net = (weights.load(net, weights_file) if from_file else net).to(device)
    known = {k: getattr(train, k) for k in ("mean", "std") if k in catalog.defaults(methods, name)}
    method = catalog.load(methods, name, **known, **options).seed(seed, device)
    run = Run(net, Batches(train, batch, generator=torch.Generator(device).manual_seed(seed)), method, recipe)
    run.begin(0)
    return run, lambda: run.advance(0)


labels = [name + "".join(f", {k} {v:g}" for k, v in options.items()) for name, options in sides]
made = {"vanilla": run_of("vanilla", {})}
made |= {label: run_of(*side) for label, side in zip(labels, sides, strict=True) if label != "vanilla"}
steps = {label: step for label, (_, step) in made.items()}
yardstick = {"two vanilla steps": lambda: (steps["vanilla"](), steps["vanilla"]())}
timed = timing.interleaved({**yardstick, **steps}, rounds, warm=5 if device == "cuda" else 1)

# %% [markdown]
# The same for `mix` alone, which makes the images; for the methods that need a gradient it has a
# pass through the network, without the gradient with respect to the weights. With a `weights_file`
# an untrained network mixes the same images in the same rounds: what do trained maps cost?

# %%
def mixing(run):
    """A method's `mix` on the first batch."""
    x, y = run.batches.take(run.batch_indices[0])

    def mix():
        with run.autocast():
            run.method.mix(x, y, run.forward)
    return mix


mixing_sides = {label: mixing(run) for label, (run, _) in made.items()}
if trained:
    mixing_sides |= {f"{label}, untrained": mixing(run_of(*side, from_file=False)[0])
                     for label, side in zip(labels, sides, strict=True)}
mixes = timing.interleaved(mixing_sides, rounds)

# %% [markdown]
# Two vanilla steps over two vanilla steps is 1 by definition; SAGE may come out below it, since it
# updates the weights once. `launches` are kernels on a GPU and tensor operations elsewhere, counted
# without a CUDA graph.

# %%
def plain(run):
    """The same step, not recorded, to count what it launches."""
    def step():
        with run.place():
            run._step(run.batch_indices[0])
    return step


rows = []
for label in ["two vanilla steps", *steps]:
    row = {"name": label, "seconds": timing.spread(timed[label]),
           "ratio": timing.ratio(timed[label], timed["two vanilla steps"])}
    if label in steps:
        row |= {"mix_seconds": timing.spread(mixes[label]), "images_per_second": batch / row["seconds"]["median"],
                "peak_bytes": timing.peak_memory(steps[label], device),
                "launches": timing.launches(plain(made[label][0]), device)}
    if f"{label}, untrained" in mixes:
        row |= {"untrained_mix_seconds": timing.spread(mixes[f"{label}, untrained"]),
                "mix_over_untrained": timing.ratio(mixes[label], mixes[f"{label}, untrained"])}
    rows.append(row)

# %%
# NBVAL_IGNORE_OUTPUT
def summary(row):
    peak, over = row.get("peak_bytes"), row["ratio"]
    mix = f"{1000 * row['mix_seconds']['median']:.2f}" if "mix_seconds" in row else ""
    return [row["name"], 1000 * row["seconds"]["median"],
            f"{over['median']:.3f} ({over['low']:.3f} to {over['high']:.3f})", mix, f"{row['images_per_second']:.0f}" if mix else "",
            row.get("launches", ""), "" if peak is None else f"{peak / 1e6:.0f}"]


show.table(["step", "milliseconds", "over two vanilla steps", "mix alone, ms", "images a second", "launches", "peak, MB"],
           [summary(row) for row in rows])

# %% mystnb={"image": {"alt": "Bars: the time of one step of each method over that of two vanilla steps, with the spread over the rounds."}}
# NBVAL_IGNORE_OUTPUT
fig, axis = plt.subplots(figsize=(6.4, 0.5 + 0.34 * len(rows)), layout="constrained")
shown = rows[1:]
middle = [row["ratio"]["median"] for row in shown]
reach = [[m - row["ratio"]["low"] for m, row in zip(middle, shown, strict=True)],
         [row["ratio"]["high"] - m for m, row in zip(middle, shown, strict=True)]]
axis.barh([row["name"] for row in shown], middle, xerr=reach, ecolor="#333333",
          color=[show.COLOURS.get(row["name"].split(",")[0], "#888888") for row in shown])
axis.axvline(1, color="#333333", linewidth=1, linestyle=":")
axis.invert_yaxis()
axis.set(xlabel="time of a step over two vanilla steps")
plt.show()

# %% [markdown]
# ## Where SAGE's time goes
#
# The parts of one step on one batch, each by itself. The clean pass computes the gradient with
# respect to the images and to the weights, and adds the latter to `.grad`. The search looks at 1 %
# of the shifts.

# %%
run, _ = made[next((label for label in steps if label.startswith("sage")), "vanilla")]
net, method = run.net, catalog.load(methods, "sage").seed(seed, device)
x, y = run.batches.take(run.batch_indices[0])
if channels_last:
    x = x.contiguous(memory_format=torch.channels_last)
with run.autocast():
    _, grad = loss_with_stored_grad(run.forward, x, lambda out: method.saliency_loss(out, y))
maps = smooth(saliency(grad))
pair, tau = method.draw_permutation(batch, device), method.candidates(*x.shape[2:], device)
a, b = sage.weighted(x, y, maps, pair, 0.3)
best = best_offset(a, b, tau)


def clean():
    run.optimizer.zero_grad()
    with run.autocast():
        loss, _ = loss_with_stored_grad(run.forward, x, lambda out: method.saliency_loss(out, y))
    loss.backward()  # hands out the gradient that the pass has computed


def mixed():
    with run.autocast():
        loss = method.loss_of(run.forward(x), y)
    loss.backward()


parts = {"clean pass": clean, "saliency and blur": lambda: smooth(saliency(grad)),
         "search": lambda: best_offset(*sage.weighted(x, y, maps, pair, 0.3), tau),
         "mix": lambda: sage.mix_at(x, y, a, b, pair, best), "mixed pass": mixed, "update": run.optimizer.step,
         "crop and flip": lambda: run.batches.take(run.batch_indices[0])}
split = timing.interleaved(parts, rounds)
rows += [{"name": f"part: {name}", "seconds": timing.spread(seconds)} for name, seconds in split.items()]

# %%
# NBVAL_IGNORE_OUTPUT
whole = sum(timing.spread(seconds)["median"] for seconds in split.values())
show.table(["part", "milliseconds", "share, %", "microseconds an image"],
           [[name, 1000 * (m := timing.spread(seconds)["median"]), 100 * m / whole, 1e6 * m / batch]
            for name, seconds in split.items()])

# %% [markdown]
# ## Half precision
#
# In bfloat16 the passes are cheaper, and the gradient coarser. Saliency is computed from it in
# `float32`, whatever the passes are in. How far does it move, and with it the shift that SAGE
# takes? Asked of a network that has seen each image once.

# %%
# NBVAL_IGNORE_OUTPUT
fresh = run_of("vanilla", {})[0]
fresh = Run(fresh.net, fresh.batches, fresh.method, Recipe(epochs=1, lr=0.05), graph=False)
fit_together([fresh])
full = smooth(method.compute_saliency(fresh.net, x, y))
with torch.autocast(torch.device(device).type, torch.bfloat16):
    half = smooth(method.compute_saliency(fresh.net, x, y))
assert half.dtype == torch.float32
together = torch.corrcoef(torch.stack([half.flatten(), full.flatten()]))[0, 1].item()
same = torch.stack([best_offset(*sage.weighted(x, y, s, pair, 0.3), tau) for s in (half, full)])
agreement = {"correlation": together, "same_shift": (same[0] == same[1]).all(1).float().mean().item()}
show.table(["bfloat16 against float32", ""], [["correlation of the maps", agreement["correlation"]],
                                              ["pairs with the same shift, %", 100 * agreement["same_shift"]]])

# %% [markdown]
# ## The record

# %%
# NBVAL_IGNORE_OUTPUT
record = records.make_timing(what="step_time", rows=rows, device=device,
                             parameters={**parameters.recorded(given), "network": {"name": model, "width": width},
                                         "dataset": dataset, "trained": trained and trained["run"],
                                         "bf16_agreement": agreement})
written = records.write(record, results)
assert records.read(written) == record
show.table(["record", "hardware"], [[written, record["hardware"]["gpu"] or record["hardware"]["cpu"]]])
