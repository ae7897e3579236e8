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
# # Experiment: train a network with any method
#
# One run of the benchmark: a data set, a network, a method, a seed. It shows its settings and the
# method at work on its own data, trains, and writes one JSON record. As it stands it is a short run
# on the built-in shapes; on real data it is run through papermill:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb \
#     -p dataset cifar10 -p root DATA -p method sage -p model preactresnet18 -p seed 0
# ```
#
# papermill's `-p` takes one number or word. A mapping or a list goes through `-y`: an ablation, and
# several seeds trained side by side, are
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA -y 'options: {fraction: 0.1}'
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA -y 'more_seeds: [1, 2]'
# ```
#
# A run that is stopped, even by force, goes on where it was when the same command is given again.
# `epochs` has no small default on real data: 0 stands for the paper's 300 there, and for 2 on the
# shapes.

# %% tags=["parameters"]
dataset = "shapes"
root = ""                # folder of the data set; it is downloaded there where it can be
method = "sage"
settings = "paper"       # the options and learning rate that the paper states, where it does; "default": the method's own
options = {}             # options of the method that are to differ, as in -y 'options: {fraction: 0.1}'
model = "preactresnet18"
width = 0                # channels of the first stage; 0: the network's own (64 in the paper), 8 on the shapes
seed = 0
more_seeds = []          # seeds trained beside it, step by step in turn, each with a record, as in -y 'more_seeds: [1, 2]'
epochs = 0               # 0: the paper's 300, on the shapes 2
train_images = 0         # 0: all; else so many, the same number of each class
batch = 100
optimizer = "sgd"        # the paper's; or "adam", "adamw", without momentum and with another lr
lr = 0.0                 # 0: the paper's, which is 0.2, and for Co-Mixup on CIFAR-10 0.12
momentum = 0.9
nesterov = True
weight_decay = 1e-4
schedule = "steps"       # the paper's, a tenth of the learning rate after each third; or "cosine", "one_cycle"
padding = 2              # pixels around the image before it is cropped
flip = True
test_every = 1           # epochs between two evaluations on the test set; there is always one after the last epoch
precision = "fp32"       # or "bf16", "fp16"
channels_last = False
compile_network = False
compile_options = {}     # of inductor, as in -y 'compile_options: {combo_kernels: true}'
device = ""              # "cpu", "cuda", …; empty: a GPU if there is one
results = "runs"         # the record goes to results/<dataset>/<model>/
checkpoints = "runs/checkpoints"
networks = "runs/networks"  # the trained network goes there, for experiments/robustness; empty: it is not kept
graph = True             # on a GPU: record the whole step as a CUDA graph, where that can be
progress = True

# %% [markdown]
# ## What is run

# %%
from pathlib import Path

import torch
from IPython.display import display

from sagelib import catalog, datasets, evaluate, methods, models, show
from sagelib.bench import parameters, records, weights
from sagelib.data.batches import Batches
from sagelib.train import Recipe, Run, fit_together

given = parameters.checked(
    dataset=dataset, root=root, method=method, settings=settings, options=options, model=model, width=width, seed=seed,
    more_seeds=more_seeds, epochs=epochs, train_images=train_images, batch=batch,
    optimizer=optimizer, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay,
    schedule=schedule, padding=padding, flip=flip, test_every=test_every, precision=precision,
    channels_last=channels_last, compile_network=compile_network, compile_options=compile_options,
    device=device, results=results, checkpoints=checkpoints, networks=networks, graph=graph,
    progress=progress)
settled = parameters.settled("train", given)
epochs, width, lr = settled["epochs"], settled["width"], settled["lr"]
device = device or ("cuda" if torch.cuda.is_available() else "cpu")
recipe = Recipe(epochs=epochs, optimizer=optimizer, lr=lr, momentum=momentum, nesterov=nesterov,
                weight_decay=weight_decay, schedule=schedule, precision=precision,
                channels_last=channels_last, compile=compile_network,
                compile_options=given["compile_options"])

# %%
# NBVAL_IGNORE_OUTPUT
parts = catalog.load(datasets, dataset, root=root or None)
if len(parts) != 2:
    raise ValueError(f"{dataset} is a few-shot data set: its test classes are new ones; take experiments/few_shot")
train, test = (part.to(device) for part in parts)
train = train.subset(train_images, seed=0) if train_images else train
known = {k: getattr(train, k) for k in ("mean", "std") if k in catalog.defaults(methods, method)}
tuned = catalog.settings(methods, method, settings, dataset, model)
options = {**known, **tuned, **given["options"]}
seeds = [seed, *given["more_seeds"]]


def network(seed):
    torch.manual_seed(seed)
    return catalog.load(models, model, classes=len(train.classes), **({"width": width} if width else {})).to(device)


net, mixer = network(seed), catalog.load(methods, method, **options)
height_width = dict(zip(("height", "width"), train.images.shape[2:], strict=True))
asked = {
    "dataset": {"name": dataset, "classes": len(train.classes), "train": len(train), "test": len(test), **height_width},
    "model": {"name": model, "parameters": sum(p.numel() for p in net.parameters()),
              "width": width or catalog.defaults(models, model).get("width")},
    "method": {"name": method, "settings": parameters.settings_name(given), **mixer.options()},
    "recipe": {**recipe.described(), "batch": batch, "padding": padding, "flip": flip},
}
ids = {seed: records.run_id(**asked, seed=seed) for seed in seeds}
runs = ", ".join(ids.values())
show.table(["part", "what"], [[k, ", ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v]
                              for k, v in {"run": runs, **asked, "seed": seeds, "device": device}.items()])

# %% [markdown]
# A result is never replaced: if this very run has a record already, the notebook stops here.

# %%
targets = [records.path({**asked, "seed": seed, "run": run}, results) for seed, run in ids.items()]
for target in targets:
    if target.exists():
        raise FileExistsError(f"this run has a record: {target}; move it away, or give another seed or results folder")

# %% [markdown]
# ## The method on this data
#
# First row: images as the network gets them, cropped and flipped. Second row: what the method makes
# of them, by the still untrained network.

# %% mystnb={"image": {"alt": "Two rows of six training images: above as they are, below as the method mixes them."}}
from copy import deepcopy


def batches(part, size, generator=None):
    return Batches(part, size, padding, flip, generator)


preview = catalog.load(methods, method, **options).seed(seed, device)
x, y = next(iter(batches(train, 6, torch.Generator(device).manual_seed(seed))))
mixed = preview.mix(x, y, deepcopy(net))
show.grid([train.pixels(x), train.pixels(mixed.x)], size=1.1)

# %% [markdown]
# ## Training
#
# Each epoch ends with a checkpoint. The curve is redrawn every ten seconds at most, and at the end.

# %% mystnb={"image": {"alt": "Learning curve: test accuracy in percent after each epoch."}}
# NBVAL_IGNORE_OUTPUT
import matplotlib.pyplot as plt

live = display(display_id=True)


def redraw(curves):
    figure = show.curves({method: curves}, draw=False)
    live.update(figure)
    plt.close(figure)


def training(seed):
    checkpoint = Path(checkpoints) / f"{dataset}-{model}-{method}-seed{seed}-{ids[seed]}.pt"
    drawn = batches(train, batch, torch.Generator(device).manual_seed(seed))
    return Run(network(seed), drawn, catalog.load(methods, method, **options).seed(seed, device), recipe, checkpoint,
               graph)


started, held_out = [training(seed) for seed in seeds], batches(test, 500 if device == "cpu" else 2000)
try:
    curves = fit_together(started, held_out, show.at_most_every(10, redraw), progress, test_every)
finally:  # also where an error ended it
    redraw([run.curve for run in started])

# %% [markdown]
# ## The record
#
# Final accuracy, the median of the last ten epochs and the best epoch are kept apart: the best was
# chosen on the test set. The record also says which test images the final network gets right, so
# that two networks can be compared image by image, and how well it fits the training images.

# %%
# NBVAL_IGNORE_OUTPUT
written = []
for seed, curve, run in zip(seeds, curves, started, strict=True):
    with run.place(), run.autocast():
        correct = evaluate.correct(run.forward, held_out)
        fitted = evaluate.scores(run.forward, batches(train, held_out.size))["accuracy"]
    if 100 * int(correct.sum()) / len(correct) != curve[-1]["test_accuracy"]:
        print(f"seed {seed}: this pass finds {int(correct.sum())} images right, the one after the last epoch found another number, "
              "as on another machine: the record does not say which")
        correct = None
    record = records.make(**asked, seed=seed, curve=curve, parameters=parameters.recorded(given), device=device,
                          together=len(seeds), correct=correct, train_accuracy=fitted)
    if networks:
        weights.save(run.net, records.path(record, networks).with_suffix(".pt"), record)
    written.append(records.write(record, results))
    assert records.read(written[-1]) == record
found = [records.read(file) for file in written]
show.table(["result", *(f"seed {seed}" for seed in seeds)],
           [["final accuracy, %", *(r["final"]["accuracy"] for r in found)],
            ["median of the last 10, %", *(r["median_last10"] for r in found)],
            ["best on the test set, %", *(r["best_on_test"]["accuracy"] for r in found)],
            ["on the training images, %", *(r["final"]["train_accuracy"] for r in found)],
            ["seconds an epoch", *(r["seconds"]["epoch"] for r in found)],
            ["recipe", *(r["kind"] for r in found)], ["record", *written]])

# %%
for run in started:
    run.checkpoint.unlink(missing_ok=True)
