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
# # Experiment: few-shot classification
#
# A network is trained on base classes with any method, then evaluated on classes that it never saw,
# each shown by one or five labelled images. Validation classes, a third group, choose the epoch. As
# it stands it is a short run on painted shapes; the paper's Table 2 is about mini-ImageNet, of
# which you need a copy, and CIFAR-FS is made from CIFAR-100:
#
# ```
# papermill notebooks/experiments/few_shot.ipynb OUT.ipynb -p dataset mini_imagenet -p root DATA -p method sage
# papermill notebooks/experiments/few_shot.ipynb OUT.ipynb -p dataset cifar_fs -p root DATA -p method sage -y 'shots: [1, 5, 10]'
# ```
#
# `-p setup book` trains with the recipe of the paper's other tables instead of the one below.
#
# papermill's `-p` takes one number or word; a list or a mapping, such as `options: {u: 1.0}`, goes
# through `-y`.
#
# A run that is stopped, even by force, goes on where it was when the same command is given again.

# %% tags=["parameters"]
dataset = "shapes_fs"    # or "cifar_fs", "mini_imagenet"
root = ""                # folder of the data set
method = "sage"
settings = "paper"       # the options that the paper states for this data set and network; for most of these: the defaults
options = {}             # options of the method that are to differ, as in -y 'options: {u: 1.0}'
model = "resnet12"
width = 0                # channels of the first block; 0: the network's own (64), 8 on the shapes
seed = 0
epochs = 0               # 0: 100, the most in the set-up that the paper follows; on the shapes 6
setup = "reference"      # what the next ones are where they are 0, empty or -1; or "book"
optimizer = ""           # "adam" or "sgd"
lr = 0.0
weight_decay = -1
batch = 0
criterion = ""           # loss of the method: "cross_entropy" or "bce"
schedule = ""            # "plateau" or "steps"
choose = ""              # the epoch: "val_loss", the lowest, or "val_accuracy", the highest
resize = -1              # to this height before the crop, which has the old size; 0: no resizing
padding = -1             # pixels of zeros around the image before the crop
patience = 9             # of the plateau: so many epochs may end without a lower validation loss
momentum = 0.9           # of sgd
nesterov = True          # of sgd
flip = True
ways = 5                 # classes of an episode
shots = [1, 5]           # labelled images of each class; the epoch is chosen with the most of them
queries = 15             # images of each class to be told apart
episodes = 1000
distances = ["cosine", "euclidean"]  # the first chooses the epoch
precision = "fp32"       # or "bf16", "fp16"
channels_last = False
compile_network = False
compile_options = {}     # of inductor, as in -y 'compile_options: {combo_kernels: true}'
device = ""              # "cpu", "cuda", …; empty: a GPU if there is one
results = "runs"         # the record goes to results/few_shot/<dataset>/<model>/
checkpoints = "runs/checkpoints"
networks = "runs/networks"  # the chosen network goes there; empty: it is not kept
graph = True             # on a GPU: record the whole step as a CUDA graph, where that can be
progress = True

# %% [markdown]
# ## What is run
#
# The paper names no value of its few-shot training; it follows "the setup from previous work"
# {cite:p}`dvornik2019`. The default, `reference`, is what the published code of that work does:
# Adam with cross-entropy, batches of 16, images of 96 pixels cropped to 84, a tenth of the learning
# rate when the validation loss has not fallen for ten epochs, and the network of the lowest loss.
# `book` is the recipe of the paper's other tables: stochastic gradient descent, a tenth of the
# learning rate after each third of the epochs, a crop by a sixteenth, and the network of the
# highest validation accuracy. [Few-shot](../10_few_shot.ipynb) compares the two.

# %%
from dataclasses import asdict
from pathlib import Path

import torch
from IPython.display import display

from sagelib import catalog, datasets, methods, models, show
from sagelib.bench import few_shot_setups, parameters, records, weights
from sagelib.data.batches import Batches
from sagelib.evaluate import fewshot
from sagelib.train import Recipe, Run, fit_together

given = parameters.checked(
    dataset=dataset, root=root, method=method, settings=settings, options=options, model=model,
    width=width, seed=seed, epochs=epochs, setup=setup, optimizer=optimizer, lr=lr,
    weight_decay=weight_decay, batch=batch, criterion=criterion, schedule=schedule, choose=choose,
    resize=resize, padding=padding, patience=patience, momentum=momentum, nesterov=nesterov,
    flip=flip, ways=ways, shots=shots, queries=queries, episodes=episodes, distances=distances,
    precision=precision, channels_last=channels_last, compile_network=compile_network,
    compile_options=compile_options, device=device, results=results, checkpoints=checkpoints,
    networks=networks, graph=graph, progress=progress)
few_shot_setups.check(given)
settled = parameters.settled("few_shot", given)
width, batch, criterion, choose = (settled[k] for k in ("width", "batch", "criterion", "choose"))
shots, distances = settled["shots"], settled["distances"]
device = device or ("cuda" if torch.cuda.is_available() else "cpu")
plateau = few_shot_setups.PLATEAU if settled["schedule"] == "plateau" else {}
named = ("epochs", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule",
         "patience", "precision", "channels_last", "compile_options")
recipe = Recipe(**{name: settled[name] for name in named}, compile=compile_network, **plateau)
if not set(distances) <= set(fewshot.DISTANCES):
    raise ValueError(f"distances are {distances}; known: {', '.join(fewshot.DISTANCES)}")
evaluations = {k: fewshot.Episodes(ways=ways, shots=k, queries=queries, episodes=episodes,
                                   seed=seed) for k in shots}

# %%
# NBVAL_IGNORE_OUTPUT
parts = catalog.load(datasets, dataset, root=root or None)
if len(parts) != 3:
    raise ValueError(f"{dataset} is no few-shot data set: its test classes are those it trains on; take experiments/train")
height, size = parts[0].images.shape[2:]
sizes = parameters.settled("few_shot", given, height=height)
resize, padding = sizes["resize"], sizes["padding"]
crop = (height, size) if resize else None
if resize:
    parts = [part.resized(resize, round(resize * size / height)) for part in parts]
train, val, test = (part.to(device) for part in parts)
known = {k: getattr(train, k) for k in ("mean", "std") if k in catalog.defaults(methods, method)}
tuned = catalog.settings(methods, method, settings, dataset, model)
options = {"criterion": criterion, **known, **tuned, **given["options"]}
torch.manual_seed(seed)
net = catalog.load(models, model, classes=len(train.classes), **({"width": width} if width else {})).to(device)
mixer = catalog.load(methods, method, **options).seed(seed, device)
asked = {
    "dataset": {"name": dataset, "classes": len(train.classes), "train": len(train), "val_classes": len(val.classes),
                "test_classes": len(test.classes), "height": height, "width": size},
    "model": {"name": model, "parameters": sum(p.numel() for p in net.parameters()),
              "width": width or catalog.defaults(models, model).get("width")},
    "method": {"name": method, "settings": parameters.settings_name(given), **mixer.options()},
    "recipe": {**recipe.described(), "batch": batch, "padding": padding, "flip": flip,
               **({"resize": resize} if resize else {})},
}
protocol = {**asdict(evaluations[max(shots)]), "distance": distances[0]}  # what chooses the epoch
protocol |= {} if choose == "val_accuracy" else {"by": choose}
run = records.run_id(**asked, seed=seed, exam=protocol)
about = {"run": run, **asked, "protocol": protocol, "seed": seed, "device": device}
show.table(["part", "what"],
           [[part, ", ".join(f"{k} {v}" for k, v in what.items())] if isinstance(what, dict)
            else [part, what] for part, what in about.items()])

# %% [markdown]
# A result is never replaced: if this very run has a record already, the notebook stops here.

# %%
key = {**asked, "kind": "few_shot", "seed": seed, "run": run}
target = records.path(key, results)
if target.exists():
    raise FileExistsError(f"this run has a record: {target}; move it away, or give another seed or results folder")

# %% [markdown]
# ## One episode
#
# Each row is a class that the network was not trained on, three of the episode's. Left of the gap
# some of the pictures that tell it, right of it some of those to be told apart. Too few pictures in
# a class would be an error here, before anything is trained.

# %% mystnb={"image": {"alt": "Three of an episode's classes, a row each: support pictures left of a gap, query pictures right of it."}}
drawn = {k: each.draw(test.labels) for k, each in evaluations.items()}
first = drawn[max(shots)][0, :3].to(device)
rows = [[*test.images[row[:min(2, max(shots))]], None, *test.images[row[max(shots):max(shots) + 2]]] for row in first]
show.grid(rows, labels=[test.classes[test.labels[row[0]]].replace(" ", "\n") for row in first], size=0.9)

# %% [markdown]
# ## Training
#
# After every epoch the network is evaluated on episodes of the validation classes. The weights of
# the best epoch are kept. The curve is redrawn every ten seconds at most, and at the end.

# %% mystnb={"image": {"alt": "Learning curve: accuracy on episodes of the validation classes in percent after each epoch."}}
# NBVAL_IGNORE_OUTPUT
import matplotlib.pyplot as plt

live = display(display_id=True)


def validate(net):
    found = fewshot.features(net, val, 100 if device == "cpu" else 500, crop)
    return fewshot.validate(found, val.labels, evaluations[max(shots)], distances[0])


def redraw(curves):
    figure = show.curves({method: curves}, "val_accuracy", "validation episodes, %", draw=False)
    live.update(figure)
    plt.close(figure)


checkpoint = Path(checkpoints) / f"few_shot-{dataset}-{model}-{method}-seed{seed}-{run}.pt"
batches = Batches(train, batch, padding, flip, torch.Generator(device).manual_seed(seed), crop)
trained = Run(net, batches, mixer, recipe, checkpoint, graph, select=choose)
try:
    curve, = fit_together([trained], validate, show.at_most_every(10, redraw), progress)
finally:  # also where an error ended it
    redraw([trained.curve])
_ = net.load_state_dict(trained.best)

# %% [markdown]
# ## New classes
#
# The mean over all episodes and its 95 % interval. The interval is about the draw of episodes
# alone; it does not cover other classes or another seed of training.

# %%
# NBVAL_IGNORE_OUTPUT
with trained.autocast():
    found = fewshot.features(net, test, crop=crop)
measured = [fewshot.evaluate(found, test.labels, evaluations[k], distance)
            for k in shots for distance in distances]
show.table(["ways", "shots", "distance", "accuracy, %", "± (95 %)"],
           [[t["ways"], t["shots"], t["distance"], t["accuracy"], t["interval"]] for t in measured])

# %% [markdown]
# ## The record

# %%
# NBVAL_IGNORE_OUTPUT
record = records.make_few_shot(**asked, seed=seed, exam=protocol, curve=curve, episodes=measured,
                               parameters=parameters.recorded(given), device=device)
assert record["run"] == run
if networks:
    weights.save(net, records.path(record, networks).with_suffix(".pt"), record)
written = records.write(record, results)
assert records.read(written) == record
show.table(["result", "value"], [["chosen epoch", record["chosen"]["epoch"] + 1],
                                 ["its accuracy on validation episodes, %", record["chosen"]["val_accuracy"]],
                                 ["seconds an epoch", record["seconds"]["epoch"]], ["record", written]])

# %%
checkpoint.unlink(missing_ok=True)
assert dataset != "shapes_fs" or all(t["accuracy"] > 100 / ways for t in measured), (
    "no better than guessing on the shapes")
