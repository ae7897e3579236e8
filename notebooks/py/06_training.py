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
# # Training
#
# Four methods, one recipe, one loop. This chapter trains with each and looks at what comes out.
#
# It does so on the built-in shapes, with a narrow network, for a few epochs and two seeds. That is
# enough to see the machinery at work, and not enough to rank methods: a result on painted shapes is
# no evidence about photographs, whichever way it falls. At the end stands the command that runs the
# same on CIFAR.

# %% tags=["parameters"]
train_images = 800
difficulty = 0.1
epochs = 10
batch = 50
width = 8
seeds = 2
results = ""  # folder of records; empty: the book's own

# %% tags=["setup"]
import tempfile
from copy import deepcopy

import matplotlib.pyplot as plt
import torch
from IPython.display import display

from sagelib import datasets, methods, models, show
from sagelib.bench import plans, records, summary, sweep
from sagelib.bench.quantities import ACCURACY
from sagelib.bench.statistics import difference
from sagelib.catalog import load, names
from sagelib.data.batches import Batches
from sagelib.evaluate import scores
from sagelib.losses import bce, one_hot
from sagelib.train import Recipe, fit

train, test = load(datasets, "shapes", train=train_images, difficulty=difficulty)

# %% [markdown]
# ## The recipe
#
# A recipe is everything about training that is not the method: how long, how fast, with what kind
# of step. A comparison of methods is only fair when all share one recipe, and it can only be
# checked when the recipe is written down in full.
#
# The paper trains with stochastic gradient descent for 300 epochs at a learning rate of 0.2, a
# tenth of it after a third of the epochs and a hundredth after two thirds {cite:p}`ma2022sage`. Its
# code adds what the text leaves out: Nesterov momentum, and weight decay on every parameter,
# BatchNorm's included. The figure shows these two steps beside two schedules that are common today,
# PyTorch's `CosineAnnealingLR` and `OneCycleLR`. They are options of `Recipe`; [chapter
# 11](11_image_classification.ipynb) asks how much of a method's gain a schedule can bring.

# %% mystnb={"image": {"alt": "Three learning-rate schedules over 300 epochs, on a logarithmic axis. Steps: 0.2, then 0.02 from epoch 100, then 0.002 from epoch 200. Cosine: a smooth fall from 0.2 towards 0. One cycle: a rise from 0.008 to 0.2 in the first 90 epochs, then a fall towards 0."}}
paper = Recipe()
rates = [paper.rate(epoch) for epoch in range(paper.epochs)]
assert rates[0] == 0.2 and abs(rates[100] - 0.02) < 1e-9 and abs(rates[299] - 0.002) < 1e-9
_, axis = plt.subplots(figsize=(5.6, 2.4), layout="constrained")
for schedule, style in (("steps", "-"), ("cosine", "--"), ("one_cycle", ":")):
    other = Recipe(schedule=schedule)
    axis.plot([other.rate(epoch) for epoch in range(300)], style, drawstyle="steps-post",
              label=schedule)
axis.set(xlabel="epoch", ylabel="learning rate", yscale="log", ylim=(1e-5, 0.4))
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
print(paper.described())

# %% [markdown]
# Every image is cropped and flipped before anything else happens to it. The crop of the authors'
# code is small: two black pixels are put around the picture, and a window of the old size is cut
# out.

# %% mystnb={"image": {"alt": "One picture six times: as it is, then shifted by up to two pixels, partly with a black edge, some of them mirrored."}}
same = train[torch.zeros(6, dtype=torch.long)]
x, _ = next(iter(Batches(same, 6, padding=2, generator=torch.Generator().manual_seed(1))))
show.grid([[train.images[0], *train.pixels(x[:5])]], ["as it is"] + [""] * 5, size=1.15)

# %% [markdown]
# ## The loss, and why the learning rate belongs to it
#
# The authors do not use cross-entropy. They take the softmax $p$ of the network's output and treat
# each class as a question of its own, answered yes or no; the mean runs over images *and* classes:
#
# $$
# \ell = - \frac{1}{BC} \sum_{n, c} \Big[ y_{nc} \log p_{nc} + (1 - y_{nc}) \log (1 - p_{nc}) \Big]
# $$ (eq-bce)

# %%
def slow_bce(logits, y):
    total = 0.0
    for row, wanted in zip(logits.softmax(1), y, strict=True):
        for p, t in zip(row, wanted, strict=True):
            total -= t * p.log() + (1 - t) * (1 - p).log()
    return total / y.numel()


logits, y = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)), one_hot(torch.tensor([1, 5, 5]), 10)
torch.testing.assert_close(bce(logits, y), slow_bce(logits, y))

# %% [markdown]
# Its gradient is smaller than that of cross-entropy by a factor of about $C$, the number of
# classes, where the network's output is uniform, as at the start. A learning rate of 0.2 with this
# loss is therefore like 0.02 with cross-entropy on ten classes, and like 0.002 on a hundred.
# Whoever takes the number 0.2 from the paper and cross-entropy from habit trains with another
# recipe.

# %%
ratio = {}
for classes in (10, 100):
    z = torch.zeros(1, classes, requires_grad=True)
    wanted = one_hot(torch.tensor([3]), classes)
    by_bce, = torch.autograd.grad(bce(z, wanted), z)
    by_ce, = torch.autograd.grad(torch.nn.functional.cross_entropy(z, wanted), z)
    ratio[classes] = (classes * by_bce.norm() / by_ce.norm()).item()
assert abs(ratio[10] - 1.11) < 0.01 and abs(ratio[100] - 1.01) < 0.01
show.table(["classes", "gradient of this loss over cross-entropy's, times C"], [[k, v] for k, v in ratio.items()])

# %% [markdown]
# ## The loop
#
# A method's `loss(net, x, y)` is the loss of one training step, whatever that takes: one pass for
# Mixup, two for SAGE. The rest is the loop that everybody writes in PyTorch. Here it is by hand,
# for one epoch of SAGE. `fit` does the same, with checkpoints and a progress bar, and ends with the
# same weights.

# %%
def start(name, seed, recipe, part=train, **more):
    torch.manual_seed(seed)
    net = load(models, "preactresnet18", classes=10, width=width)
    batches = Batches(part, batch, generator=torch.Generator().manual_seed(seed))
    curve = fit(net, batches, load(methods, name).seed(seed), recipe, **more)
    return net, curve


small = train.subset(100)
net, _ = start("sage", 0, Recipe(epochs=1), small)

torch.manual_seed(0)
by_hand, method = load(models, "preactresnet18", classes=10, width=width).train(), load(methods, "sage").seed(0)
optimizer = torch.optim.SGD(by_hand.parameters(), 0.2, 0.9, weight_decay=1e-4, nesterov=True)
for x, y in Batches(small, batch, generator=torch.Generator().manual_seed(0)):
    optimizer.zero_grad()
    loss = method.loss(by_hand, x, y)
    loss.backward()
    optimizer.step()
for one, two in zip(net.parameters(), by_hand.parameters(), strict=True):
    torch.testing.assert_close(one, two)

# %% [markdown]
# ## Stopped, and going on
#
# Long trainings get killed. With a checkpoint, `fit` writes everything that decides the rest of the
# run after each epoch: weights, momentum, the state of every random generator. A run that is
# stopped and started again ends with the very weights of one that was left in peace.

# %%
def stop_after_two(curve):
    if len(curve) == 2:
        raise KeyboardInterrupt


recipe = Recipe(epochs=4)
whole, curve = start("sage", 3, recipe, small)
with tempfile.TemporaryDirectory() as folder:
    try:
        start("sage", 3, recipe, small, checkpoint=f"{folder}/run.pt", on_epoch=stop_after_two)
    except KeyboardInterrupt:
        resumed, again = start("sage", 3, recipe, small, checkpoint=f"{folder}/run.pt")
assert all(torch.equal(p, q) for p, q in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
assert [e["train_loss"] for e in curve] == [e["train_loss"] for e in again]

# %% [markdown]
# What cannot be repaired should stop at once. A loss that is not a number ends the run, with the
# place and the settings, and the checkpoint still holds the last good epoch.

# %%
broken = load(models, "preactresnet18", classes=10, width=2)
broken.linear.bias.data[0] = torch.nan
try:
    fit(broken, Batches(small, batch, generator=torch.Generator().manual_seed(0)), load(methods, "vanilla"), recipe)
except FloatingPointError as error:
    print(str(error)[:73], "…")

# %% [markdown]
# ## Four methods
#
# Now the comparison: same images, same recipe, same seeds. Only the method differs.
#
# With so few epochs a learning rate that falls after a third of them would stop the learning before
# it has begun, so here it falls late. That is a shortened recipe, tuned by looking at vanilla
# alone, and one more reason not to read a ranking into it.

# %%
# NBVAL_IGNORE_OUTPUT
nets, runs, recipe = {}, {}, Recipe(epochs=epochs, milestones=(0.75, 0.92), channels_last=True)  # a memory layout, faster on processors
for name in ("vanilla", "mixup", "cutmix", "sage"):
    done = [start(name, seed, recipe, test=Batches(test, 500)) for seed in range(seeds)]
    nets[name], runs[name] = [net for net, _ in done], [curve for _, curve in done]
assert all(curve[-1]["test_accuracy"] > 20 for curves in runs.values() for curve in curves)  # guessing gives 10

# %% tags=["hide-input"] mystnb={"image": {"alt": "Learning curves: test accuracy over the epochs for vanilla, Mixup, CutMix and SAGE, two seeds each; all rise, most where the learning rate falls, and vanilla ends the highest."}}
show.curves(runs)

# %%
# NBVAL_IGNORE_OUTPUT
final = {name: [curve[-1]["test_accuracy"] for curve in curves] for name, curves in runs.items()}
show.table(["method", "mean of the seeds, %", "each, %", "last training loss"],
           [[name, sum(v) / len(v), ", ".join(f"{a:.1f}" for a in v), f"{runs[name][0][-1]['train_loss']:.3f}"]
            for name, v in final.items()])

# %% [markdown]
# **What to see.** The mixing methods have the higher training loss, since they train on harder
# images than they are tested on, and in so few epochs they do not catch up. In the paper's tables
# they win after 300 epochs on 50,000 images. Nothing here speaks for or against that: the data are
# synthetic, the network is narrow, the training short, and two seeds measure luck as much as
# method.
#
# What the built-in data *can* show is what a method does to an image, because the objects are
# known. What it *cannot* show is whether that helps on photographs.
#
# ## The same networks on noisy images
#
# One more thing is cheap to ask: how do these networks stand noise they were not trained with?

# %% mystnb={"image": {"alt": "Accuracy of the four methods against the strength of Gaussian noise; all fall as the noise grows."}}
levels, falls = (0.0, 0.05, 0.1, 0.2), {}
for name, found in nets.items():
    falls[name] = []
    for level in levels:
        noise = torch.randn(test.images.shape, generator=torch.Generator().manual_seed(0))
        noisy = test[slice(None)]
        noisy.images = ((test.images / 255 + level * noise).clamp(0, 1) * 255).round().to(torch.uint8)
        falls[name].append(sum(scores(net, Batches(noisy, 500))["accuracy"] for net in found) / len(found))
_, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
for name, values in falls.items():
    axis.plot(levels, values, marker="o", markersize=3, color=show.COLOURS[name], label=name)
axis.set(xlabel="standard deviation of the noise, pixels in [0, 1]", ylabel="test accuracy, %")
axis.legend(frameon=False)
plt.show()
assert all(values[0] > values[-1] for values in falls.values())

# %% [markdown]
# **What to see.** All fall. The order at one noise level need not be that at another, and with two
# seeds it may change with the next seed.
#
# ## When does a regulariser help?
#
# Mixing is a *regulariser*. It makes training harder, so that the network memorises less. This
# helps a network that would otherwise fit its training images almost perfectly. If training ends
# long before that, the harder task only slows it down. So a recipe for comparing mixing methods
# must let the network fit its images.
#
# The book's recipe for a laptop was chosen by a pilot with vanilla alone, so that the choice
# favours no method. The criterion has three parts: at least 100 epochs, with the paper's batch
# size, learning rate and steps; more than 99 % accuracy on the training images at the end; at most
# 12 minutes on one core. All runs of the pilot are on CIFAR-10, with a network of width 16 and the
# same number of images of each class. They are runs of the train notebook; its command for this
# recipe is below, in the section "On real images".

# %% tags=["records", "nbval-ignore-output"] mystnb={"image": {"alt": "Training loss of vanilla against the epoch, on a logarithmic axis, a line for each number of training images and epochs of the pilot. The longest runs on the fewest images end lowest, and each learning-rate step lowers the loss."}}
all_records = records.every(results or records.RESULTS)
laptop = [r for r in all_records
          if r["method"]["name"] == "vanilla" and plans.recipe_name(r) == "laptop"]
pilot = records.every(records.MEASURED / "pilot") + laptop[:1]
one_core = sweep.opening.MACHINES[sweep.opening.CORE]
core = next(m for m in sweep.estimate.machines() if m.name == one_core)
pilot.sort(key=lambda r: (r["recipe"]["epochs"], r["dataset"]["train"]))
body, lines = [], {}
for record in pilot:
    count, length = record["dataset"]["train"], record["recipe"]["epochs"]
    asked = {key: value for key, value in record["parameters"].items()
             if key in plans.defaults("train")}
    minutes = sweep.estimate.seconds(plans.RunSpec("train", {**asked, "test_every": 20}), core) / 60
    fits = record["final"]["train_accuracy"]
    meets = "yes" if length >= 100 and fits > 99 and minutes <= 12 else "no"
    body.append([f"{count:,}", length, fits, record["final"]["accuracy"], round(minutes, 1), meets])
    lines[f"{count:,} images, {length} epochs"] = record["curve"]
display(show.table(["training images", "epochs", "accuracy on them, %", "test accuracy, %",
                    "minutes on one core, estimated", "meets the criterion"], body,
                   "Vanilla, CIFAR-10, PreActResNet18 of width 16, seed 0"))
_, axis = plt.subplots(figsize=(6.4, 3), layout="constrained")
for label, curve in lines.items():
    axis.plot([e["epoch"] + 1 for e in curve], [e["train_loss"] for e in curve], label=label)
axis.set(xlabel="epoch", ylabel="training loss", yscale="log")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# **What to see.** The number of steps does not decide whether the network fits: 10,000 images in 30
# epochs are 3,000 steps, 2,000 images in 100 epochs are 2,000. What counts is how many images there
# are to fit, and how often the network sees each of them. The recipe with 2,000 images and 100
# epochs is called `laptop`, and the book's plans use it under this name. The recipe with 10,000
# images and 30 epochs was the book's first choice. It stays as a counter-example, called
# `underfit`.
#
# The next table shows what the recipe does to a comparison. It has the same methods, the same
# network and the same test set, under both recipes: each method's difference to vanilla, over equal
# seeds.

# %% tags=["records", "nbval-ignore-output"]
compared = {}  # recipe -> method -> its Difference to vanilla
for runs in summary.runs_by_row(all_records, "cifar10", "preactresnet18",
                                {m: (m, {}) for m in names(methods)}).values():
    recipe = plans.recipe_name(next(iter(runs.values()))[0])
    if recipe in ("underfit", "laptop") and "vanilla" in runs:
        compared[recipe] = {m: difference(rs, runs["vanilla"], ACCURACY)
                            for m, rs in runs.items() if m != "vanilla"}
shared = [m for m in names(methods) if any(m in gaps for gaps in compared.values())]
display(show.table(["method", *(f"minus vanilla, {recipe}" for recipe in compared)],
                   [[m, *(str(gaps.get(m) or "not run") for gaps in compared.values())]
                    for m in shared],
                   "Test accuracy, percentage points: mean ± standard deviation (seeds)"))
counts = [f"{sum(gap.mean > 0 for gap in gaps.values() if gap)} of {len(gaps)} under `{recipe}`"
          for recipe, gaps in compared.items()]
show.Markdown(f"Methods whose mean is above vanilla's: {', '.join(counts)}." if counts
              else "**Not run.**")

# %% [markdown]
# [Chapter 11](11_image_classification.ipynb) says which of these differences are decided.
#
# ## On real images
#
# The experiment notebook does all this on CIFAR-10, with the paper's recipe, and leaves a record of
# the run:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb \
#     -p dataset cifar10 -p root DATA -p method sage -p model preactresnet18 -p seed 0
# ```
#
# On a laptop, take the recipe of the pilot. The record says that the recipe was shortened:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA \
#     -p method sage -p epochs 100 -p width 16 -p train_images 2000 -p channels_last True \
#     -p test_every 20
# ```
#
# ## Exercises

# %% [markdown]
# ### Exercise 6.1
#
# Train a network with `criterion="cross_entropy"` at a learning rate of 0.02, on the small set. Is
# its first epoch like that of the default loss at 0.2?

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
torch.manual_seed(0)
net = load(models, "preactresnet18", classes=10, width=width)
twin, shuffle = deepcopy(net), lambda: torch.Generator().manual_seed(0)
vanilla = load(methods, "vanilla", criterion="cross_entropy")
fit(net, Batches(small, batch, generator=shuffle()), vanilla, Recipe(epochs=1, lr=0.02))
before = torch.cat([p.flatten() for p in twin.parameters()])
fit(twin, Batches(small, batch, generator=shuffle()), load(methods, "vanilla"), Recipe(epochs=1))
steps = [torch.cat([p.flatten() for p in n.parameters()]) - before for n in (net, twin)]
alike = torch.cosine_similarity(*steps, dim=0).item()
assert alike > 0.5
print(f"cosine of the two epochs: {alike:.2f}, ratio of their lengths {(steps[1].norm() / steps[0].norm()).item():.2f}")

# %% [markdown]
# ### Exercise 6.2
#
# A step of SAGE needs two forward and two backward passes. Count them with hooks, for vanilla and
# for SAGE.

# %% tags=["hide-cell"]
passes = {}
for name in ("vanilla", "sage"):
    passes[name] = [0, 0]
    hooks = [net.linear.register_forward_hook(lambda *_, k=name: passes[k].__setitem__(0, passes[k][0] + 1)),
             net.linear.register_full_backward_hook(lambda *_, k=name: passes[k].__setitem__(1, passes[k][1] + 1))]
    load(methods, name).seed(0).loss(net, *next(iter(Batches(small, batch)))).backward()
    for hook in hooks:
        hook.remove()
assert passes == {"vanilla": [1, 1], "sage": [2, 2]}

# %% [markdown]
# ### Exercise 6.3
#
# Which milestones does a run of 12 epochs have? Check with `Recipe(epochs=12).rate`.

# %% tags=["hide-cell"]
rates = [Recipe(epochs=12).rate(epoch) for epoch in range(12)]
assert rates[:4] == [0.2] * 4 and max(rates[4:8]) < 0.021 and max(rates[8:]) < 0.0021
