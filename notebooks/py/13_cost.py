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
# # Cost
#
# SAGE passes each batch through the network twice. The paper {cite:p}`ma2022sage` says that this about doubles the time of
# training, that nothing else is added, and that its closest rivals cost far more. Its evidence is Table 6,
# of GPU hours, and two figures that set those against accuracy, 5b and 7.
#
# Hours depend on a machine. So we first count what a step must compute, on any machine; then read the hours beside that count
# and our own clock; and then ask what twice the time would buy without SAGE.

# %% tags=["parameters"]
seed = 0

# %%
import itertools
import json
from unittest import mock

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import display

from sagelib import catalog, methods, models, records, show, summary, timing
from sagelib.losses import one_hot

table_1, table_6 = records.reported(1), records.reported(6)
NAMES = list(table_6[0])[2:]
assert len(NAMES) == 8 and all(list(row)[2:] == NAMES for row in table_1 + table_6)

# %% [markdown]
# ## One unit, three times
#
# Nearly all arithmetic of these networks is in convolutions. Each number that a convolution gives is a sum over one filter. So
# the whole output takes, for each image,
#
# ```{math}
# :label: eq-macs
# N = \underbrace{C_\text{out}\, H_\text{out}\, W_\text{out}}_{\text{numbers in the output}} \cdot
# \underbrace{(C_\text{in} / g)\; k_h\, k_w}_{\text{weights in a filter}}
# ```
#
# multiplications, each with an addition, where $g$ is the number of groups. Training also needs the gradient by the
# layer's input and that by its weights. What do they cost? In loops, all three go over the same tuples of a weight and a place:

# %%
g = torch.Generator().manual_seed(seed)
x, w, up = (torch.randn(size, generator=g) for size in ((2, 6, 5), (3, 2, 3, 3), (3, 6, 5)))  # up: gradient by the output
wide = F.pad(x, (1, 1, 1, 1))
out, by_input, by_weights, n = torch.zeros(3, 6, 5), torch.zeros_like(wide), torch.zeros_like(w), 0
for o, i, j in itertools.product(range(3), range(6), range(5)):  # each number in the output
    for c, down, right in itertools.product(range(2), range(3), range(3)):  # each weight of its filter
        out[o, i, j] += w[o, c, down, right] * wide[c, i + down, j + right]
        by_input[c, i + down, j + right] += w[o, c, down, right] * up[o, i, j]
        by_weights[o, c, down, right] += wide[c, i + down, j + right] * up[o, i, j]
        n += 1

x.requires_grad_()
w.requires_grad_()
theirs = F.conv2d(x[None], w, padding=1)[0]
theirs.backward(up)
torch.testing.assert_close(theirs, out)
torch.testing.assert_close(x.grad, by_input[:, 1:-1, 1:-1])
torch.testing.assert_close(w.grad, by_weights)
assert n == out.numel() * w[0].numel()

# %% [markdown]
# Forward, backward by inputs, backward by weights: one unit each. Write $F$, $D$ and $W$ for them. A vanilla step is three
# units. SAGE makes a clean pass and a mixed one. If the clean gradient by the weights is not used (`reuse=0`), it need not be
# computed:
#
# ```{math}
# :label: eq-step-cost
# \begin{aligned}
# \frac{\text{SAGE}}{\text{vanilla}} &= \frac{(F + D + W) + (F + D + W)}{F + D + W} = 2 \\[0.4em]
# \frac{\text{without reuse}}{\text{vanilla}} &= \frac{(F + D) + (F + D + W)}{F + D + W} = \frac{5}{3}
# \end{aligned}
# ```
#
# One small thing is missing: the first layer needs no gradient by its input, unless saliency asks for it.
#
# ## A whole network
#
# A hook on each convolution and linear layer sees what shape it gives. The sum must be what PyTorch's own counter finds, which
# counts a multiplication and an addition as two operations.

# %%
def layers_of(model, size=32):
    """A network at full width, and its layers with (multiply-adds, numbers given) for one image."""
    net, found = catalog.load(models, model, classes=10), []
    hooks = [layer.register_forward_hook(lambda own, _, z: found.append((own, z.numel() * own.weight[0].numel(), z.numel())))
             for layer in net.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return net, found


torch.manual_seed(seed)
nets, layers = {}, {}
for row in table_6:
    nets[row["model"]], layers[row["model"]] = layers_of(row["model"])
forward = {model: 2 * sum(n for _, n, _ in found) for model, found in layers.items()}
first = {model: 2 * found[0][1] for model, found in layers.items()}
for model, net in nets.items():
    counted_by_torch = timing.operations(lambda net=net: net(torch.zeros(1, 3, 32, 32)))
    assert counted_by_torch == (forward[model], 0) and first[model] < 0.004 * forward[model]
show.table(["network", "layers", "10⁶ multiply-adds an image", "in the first layer, %"],
           [[m, len(layers[m]), forward[m] / 2e6, 100 * first[m] / forward[m]] for m in nets])

# %% [markdown]
# ## A whole step of each method
#
# The same counter can watch a real training step, `backward` of each method, on two images. Divided by one forward pass, its
# two sums say how often a method goes forward, and how many units it goes back.

# %%
def counted(net, name, **options):
    """Operations forward and backward of one step on two images."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    method, labels = catalog.load(methods, name, **options).seed(seed), one_hot(torch.tensor([0, 1]), 10)
    return timing.operations(lambda: method.backward(net, images, labels))


# %%
name = "preactresnet18"
steps = {m: counted(nets[name], m) for m in NAMES} | {"sage, reuse 0": counted(nets[name], "sage", reuse=0)}
units = {m: [n / (2 * forward[name]) for n in ns] for m, ns in steps.items()}
times = {m: sum(ns) / sum(steps["vanilla"]) for m, ns in steps.items()}
whole = {m: round(sum(both)) for m, both in units.items()}
assert abs(times["sage"] - 2) < 0.005 * 2 and abs(times["sage, reuse 0"] - 5 / 3) < 0.005 * 5 / 3
assert all(steps[m] == steps["vanilla"] for m in ("mixup", "cutmix", "manifold_mixup", "saliencymix"))
assert steps["puzzlemix"] == steps["sage, reuse 0"] and abs(times["comixup"] - times["sage"]) < 1e-3
for m in NAMES:  # nothing but units, less the gradient by the first layer's input where nobody asks for it
    assert abs(sum(steps[m]) / (2 * (whole[m] * forward[name] - first[name])) - 1) < 1e-3
show.table(["method", "forward", "backward", "over vanilla"], [[m, *both, times[m]] for m, both in units.items()],
           f"Units of work in a step, {name}. A unit is a forward pass.")

# %% [markdown]
# **What to see.** In passes, four methods need what vanilla needs, and SAGE and Co-Mixup twice as much. Puzzle Mix lies between, because
# its saliency pass leaves no gradient by the weights; its authors' code computes that gradient too and throws it away, six units.
#
# Two statements of the paper need care. Section 3.4 says that earlier methods discard all that they compute for
# saliency. Puzzle Mix does; Co-Mixup, with its authors' settings, keeps the clean gradient as a regulariser: four units back.
# And reuse, says the introduction, "further decreases the amortized training time". In a step it saves nothing: it *adds* one unit to
# five. It may save steps, if a step on both gradients teaches more. But the paper compares methods at the same number of steps.
#
# The search is not in this table, nor are the solvers of Puzzle Mix and Co-Mixup: the counter does not see element-wise work and
# searches. [The search, exact and free](08_search.ipynb) and [chapter 7](07_rivals.ipynb) time these.
#
# ## A counter is not an oracle
#
# Does the counter agree with our sum for the other network too? Forward it did. Backward:

# %%
# NBVAL_IGNORE_OUTPUT
rows = []
for model in nets:
    by_counter, by_hand = sum(counted(nets[model], "vanilla")), 2 * (3 * forward[model] - first[model])
    grouped = 4 * sum(n * (own.groups - 1) for own, n, _ in layers[model] if isinstance(own, torch.nn.Conv2d))
    assert by_counter - by_hand in (0, grouped)
    rows.append([model, by_hand / 2e9, by_counter / 2e9, by_counter / by_hand])
show.table(["network", "10⁹ operations a step and image, by hand", "by the counter", "ratio"], rows, f"PyTorch {torch.__version__}")

# %% [markdown]
# **What to see.** ResNeXt29 has convolutions in four groups. Where the ratio is 1.25, PyTorch's counter forgets the groups in the
# gradient by the weights and counts it $g$ times; the `assert` says that this is all that may differ. The loops above know better, so
# for ResNeXt29 we use the sum by hand.
#
# ## Table 6
#
# The paper's hours, as ratios to vanilla; the counted ratio; and ours, from the newest record of [the
# experiment](experiments/step_time.ipynb) in which all eight methods took turns, with the range over its rounds. Ratios may be
# compared with care, seconds not: the paper's machine was a T4, ours stands above each table. A ratio is over half of two vanilla steps,
# which are timed beside the single one; so vanilla's own says how far the clock can be trusted.

# %%
TIMED = records.timings(records.RESULTS, "step_time")
WORK = {r["model"]: {m: (whole[m] * forward[r["model"]] - first[r["model"]]) / 1e9 for m in NAMES} for r in table_6}


def where(record):
    h, p = record["hardware"], record["parameters"]
    place = h["gpu"] or f"{h['cpu']}, {p['threads']} thread{'s' if p['threads'] > 1 else ''}"
    how = [k.replace("_", " ") for k in ("channels_last", "compile_network") if p[k]]
    return ", ".join([place, p["precision"], *how, f"batch of {p['batch']}", f"{p['rounds']} rounds"])


# %%
for said in table_6:
    model, ours = said["model"], timing.of_methods(TIMED, said["model"], NAMES)
    over, ratios, work = {m: said[m] / said["vanilla"] for m in NAMES}, timing.over_vanilla(ours), WORK[model]
    assert abs(over["sage"] - 2) < 0.05 and over["comixup"] > over["puzzlemix"] > over["sage"]
    assert all(abs(over[m] - 1) < 0.06 for m in ("mixup", "cutmix", "manifold_mixup", "saliencymix"))
    assert all(r["low"] <= r["median"] <= r["high"] for r in ratios.values())
    shown = {m: "{median:.2f} ({low:.2f} to {high:.2f})".format(**r) for m, r in ratios.items()}
    rows = [[m, said[m], over[m], work[m] / work["vanilla"], shown.get(m, "not run")] for m in NAMES]
    display(show.table(["method", "hours, reported", "over vanilla, reported", "counted", "measured (range)"], rows,
                       f"Table 6, {said['dataset']}, {model}. Measured on: {where(ours) if ours else 'not run'}"))

# %% [markdown]
# **What to see.** For six of the eight methods the paper's hours are what the count says, within six per cent. For SAGE that is the
# central claim of this section, and the hours bear it out. In the paper's hours Puzzle Mix and Co-Mixup cost far more than their passes.
# Measured on one core of a CPU, with solvers that are ours, they do not: there a pass is slow, and nothing else counts beside it.
#
# Where a measured ratio differs from the counted one, there are three reasons: mixing, with the solvers; noise, whose size the range
# shows; and units of equal work that need not take equal time. SAGE may come out a little below two, since it updates the weights once.
#
# ### Can the hours be right?
#
# The counted work of 300 epochs of 50,000 images, over the hours, is a rate. The data sheet of
# [NVIDIA's T4](https://www.nvidia.com/en-us/data-center/tesla-t4/) promises at most $8.1 \cdot 10^{12}$ operations a second in single
# precision (convolutions by fast algorithms execute fewer than we count). And the other way round: how many milliseconds of each of the 150,000 steps do the passes not explain?

# %%
images, batches, peak = 300 * 50_000, 300 * 500, 8.1e12
rows, share, unexplained = [], {}, {}
for said in table_6:
    model = said["model"]
    share[model] = images * WORK[model]["vanilla"] * 1e9 / (3600 * said["vanilla"]) / peak
    per_step = {m: 3.6e6 * said[m] / batches for m in NAMES}
    extra = {(m, k): per_step[m] - k / 3 * per_step["vanilla"]
             for m, k in (("sage", 6), ("puzzlemix", 5), ("puzzlemix", 6), ("comixup", 6))}
    unexplained[model] = extra
    scatter = [per_step[m] - per_step["vanilla"] for m in ("mixup", "cutmix", "manifold_mixup", "saliencymix")]
    rows.append([model, 100 * share[model], per_step["vanilla"], f"{min(scatter):.1f} to {max(scatter):.1f}", *extra.values()])
    assert abs(extra["sage", 6]) < 0.05 * per_step["vanilla"] and extra["comixup", 6] > 300 and extra["puzzlemix", 6] > 50
written = {m: sum(n for *_, n in found) / (forward[m] / 2) for m, found in layers.items()}  # for each multiplication
one, two = unexplained.values()
assert written["resnext29_4_24"] > 3 * written["preactresnet18"]
assert two["puzzlemix", 6] > 1.3 * one["puzzlemix", 6] and two["comixup", 6] < 0.9 * one["comixup", 6]
assert 0.3 < share["preactresnet18"] < 0.8 and 0.2 < share["resnext29_4_24"] < 0.3
show.table(["network", "of the T4's peak, %", "vanilla step, ms", "beyond: the four of 3 units", "SAGE, 6 units", "Puzzle Mix, 5", "Puzzle Mix, 6",
            "Co-Mixup, 6"], rows, "What the reported hours say, in milliseconds a step beyond the passes")

# %% [markdown]
# **What to see.** Half of the peak for PreActResNet18 is plausible. ResNeXt29 reaches a quarter. It writes more than three times as
# many numbers for each multiplication, so that memory rather than arithmetic may set its pace; that is a hypothesis.
#
# What SAGE takes beyond its passes is no more than what methods of equal work differ by. So no cost of a search is visible, even of the
# authors' loop, and one of a few milliseconds could not be. The two solvers take tens and hundreds of milliseconds. Both rows have as many images of the same size in a batch, so a solver should
# take the same time in both. By subtraction it does not: Puzzle Mix's comes out higher for ResNeXt29, Co-Mixup's lower. Such
# differences are good for the size of a thing, not for its digits.
#
# ### A ratio has two machines in it
#
# In the authors' code the solvers' labellings run on the host, the passes on the GPU. If a vanilla step takes $t$ on the device and
# the solver $r$ on the host, a method of $k$ units costs $k/3 + r/t$ vanilla steps. Make the device faster and leave the host
# (for Puzzle Mix this simplifies: it moves its patches on the device):

# %% mystnb={"image": {"alt": "Two rising curves and a flat line on logarithmic axes: the cost of Co-Mixup, Puzzle Mix and SAGE over vanilla against the speed of the device. On slow devices all come near two; on fast ones the solvers' methods cost tens to hundreds of vanilla steps, SAGE stays at two. Dots mark the T4."}}
said, beyond = table_6[0], unexplained["preactresnet18"]
per_step = 3.6e6 * said["vanilla"] / batches
speed = torch.logspace(-2, 2, 100)
cost = {m: 2 + beyond[m, 6] * speed / per_step for m in ("comixup", "puzzlemix")} | {"sage": 2 + 0 * speed}
assert all(abs(2 + beyond[m, 6] / per_step - said[m] / said["vanilla"]) < 1e-9 for m in ("comixup", "puzzlemix"))
assert max(line[0] for line in cost.values()) < 2.1 and cost["comixup"][-1] > 500
_, axis = plt.subplots(figsize=(6.2, 3.1), layout="constrained")
for m, line in cost.items():
    axis.loglog(speed, line, color=show.COLOURS[m], label=m, linestyle="--" if m == "sage" else "-")
    axis.plot(1, said[m] / said["vanilla"], "o", color=show.COLOURS[m])
axis.set(xlabel="speed of the device, T4 = 1; the host stays as it is", ylabel="vanilla steps per step", ylim=(1, None))
axis.set_yticks([1, 2, 5, 10, 100], ["1", "2", "5", "10", "100"])
axis.minorticks_off()
axis.annotate("as reported", (1, said["comixup"] / said["vanilla"]), (0.08, 40), arrowprops={"arrowstyle": "-", "color": "#888888"})
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# **What to see.** The dots are the reported hours on CIFAR-10. On a device tens of times slower, such as one core of a CPU, the published
# code would come near two for all three (`sagelib`'s Puzzle Mix, with five units, near 5/3). On one a hundred times faster
# Co-Mixup would cost hundreds of vanilla steps. For these two a ratio measured on a CPU says little about a GPU.
#
# SAGE's flat line assumes a search that runs where the passes do and never waits for the host, as `sagelib`'s does. The authors' loop
# asks the host some two hundred times a step; on a fast device its line would rise too. Its few milliseconds are below the scatter
# of the hours, so we draw none. In `sagelib` the solvers of the other two have
# kernels for an NVIDIA GPU as well, which no record has timed yet.
#
# ## Where the time of a SAGE step goes
#
# The parts of one step, each timed by itself, from the newest record that has them. The scale is logarithmic: read the labels.

# %% mystnb={"image": {"alt": "Horizontal bars on a logarithmic scale: milliseconds of each part of a SAGE step, from the two passes down to crop and flip, each labelled with its milliseconds and its share of the sum."}}
record = next(r for r in reversed(TIMED) if r["parameters"]["model"] == name and r["parameters"]["width"] == 64
              and any(row["name"].startswith("part: ") for row in r["rows"]))
spent = {row["name"].removeprefix("part: "): 1000 * row["seconds"]["median"] for row in record["rows"]
         if row["name"].startswith("part: ")}
total = sum(spent.values())
passes_take, mixing_takes = (sum(spent[k] for k in ks) / total for ks in (
    ("clean pass", "mixed pass"), ("saliency and blur", "search", "mix")))
assert passes_take + mixing_takes < 1
_, axis = plt.subplots(figsize=(6.8, 3), layout="constrained")
drawn = axis.barh(list(spent), list(spent.values()), log=True, color=show.COLOURS["sage"])
axis.bar_label(drawn, [f"{ms:,.{0 if ms > 10 else 2}f} ms, {ms / total:.2%}" for ms in spent.values()], padding=3)
axis.invert_yaxis()
axis.set(xlabel="milliseconds", xlim=(min(spent.values()) / 2, 20 * max(spent.values())))
axis.set_title(f"{record['parameters']['model']}: {where(record)}\nthe passes {passes_take:.1%}, "
               f"saliency, search and mix {mixing_takes:.1%}", fontsize=9)
plt.show()

# %% [markdown]
# **What to see.** The title adds the parts up. The caption of Figure 5b finds "no noticeable overhead besides the additional forward
# and backward pass": that overhead is the share of saliency, search and mix. Parts are timed one by one, so their sum is not exactly a step.
#
# ## Figures 5b and 7
#
# Accuracy upwards, hours to the right: best is the upper left corner. The caption of Figure 5b names no data set, its text speaks
# of CIFAR-100; Figure 7 shows both. Table 6 has hours for CIFAR-100 with ResNeXt29 alone. The accuracy that belongs to them is
# ResNeXt29's in Table 1, and we draw that. If the paper's plot has PreActResNet18's accuracy there, it joins two networks. The dashed lines
# go through vanilla.

# %% mystnb={"image": {"alt": "Two scatter plots of accuracy against reported GPU hours, CIFAR-10 with PreActResNet18 and CIFAR-100 with ResNeXt29. Four methods stand near vanilla's hours, SAGE at twice as many and highest, Puzzle Mix further right, Co-Mixup furthest."}}
accuracy = {(row["dataset"], row["model"]): row for row in table_1}
for said, figure in zip(table_6, ("Figure 7", "Figure 7, and 5b"), strict=True):
    right = accuracy[said["dataset"], said["model"]]
    show.scatter({m: (said[m], right[m]) for m in NAMES}, "GPU hours on a T4", "accuracy, %",
                 f"{figure}, from Tables 1 and 6: {said['dataset']}, {said['model']}", size=(6.2, 2.9))

# %% [markdown]
# The text's claims, asked of the reported numbers one by one:

# %%
slow = ("puzzlemix", "comixup", "sage")  # saliency from the network itself
frontier = {}
for said in table_6:
    right = accuracy[said["dataset"], said["model"]]
    assert min(slow, key=said.get) == "sage" == max(NAMES, key=right.get)
    assert all(right[m] > right["saliencymix"] for m in slow) and said["saliencymix"] < 1.05 * said["vanilla"]
    frontier[said["dataset"]] = [m for m in NAMES if not any(said[o] < said[m] and right[o] > right[m] for o in NAMES)]
best = {row["model"]: max(NAMES, key=row.get) for row in table_1 if row["dataset"] == "cifar100"}
assert best == {"preactresnet18": "sage", "resnext29_4_24": "sage", "wrn16_8": "puzzlemix"}
ten = accuracy["cifar10", "preactresnet18"]
assert ten["comixup"] < ten["cutmix"] and table_6[0]["comixup"] > 7 * table_6[0]["cutmix"]
assert frontier == {"cifar10": ["mixup", "cutmix", "manifold_mixup", "sage"],
                    "cifar100": ["vanilla", "mixup", "saliencymix", "sage"]}
show.table(["data", "no other method is both faster and more accurate"], [[d, ", ".join(ms)] for d, ms in frontier.items()])

# %% [markdown]
# **What to see.** The claims about order hold on the reported numbers. SAGE is the fastest of the three whose saliency comes from the
# network, and the most accurate of all in both rows. SaliencyMix is fast and gains less than those three. On CIFAR-10 Co-Mixup
# is even less accurate than CutMix, at more than seven times its hours. That SAGE is the "most accurate on CIFAR-100" is true for two networks of
# three: with WRN16-8, which has no hours in Table 6, it is Puzzle Mix.
#
# Two statements mislead. The "minimal" overhead of the abstract and the conclusion is a factor of two against
# vanilla; it is small only against the rivals. And Mixup, CutMix and Manifold Mixup are *not* fast
# because "the data augmentation is performed during data loading". Manifold Mixup mixes what hidden layers give, which no loader has,
# and in the authors' published code all three run [inside the training step](appendix_paper_and_code.ipynb). They are fast because mixing two
# tensors is nothing beside a pass.
#
# ### As measured
#
# The same from our own records: the final accuracy of the recipe that is named, over the step ratio of the timing
# record. The trainings' own seconds are not used, since some shared their machines with other work.

# %% mystnb={"image": {"alt": "Scatter plot of measured accuracy against the measured time of a step over vanilla's, a mark for each method that has both records."}}
ratios = timing.over_vanilla(timing.of_methods(TIMED, "preactresnet18", NAMES))
recipes = summary.measured(records.every(records.RESULTS), "cifar10", "preactresnet18", {m: (m, {}) for m in NAMES})
kind, ours = next(iter(recipes.items()), ("none yet", {}))
scores = {m: summary.spread(map(summary.final, found)) for m, found in ours.items()}
points = {m: (ratios[m]["median"], scores[m].mean) for m in NAMES if m in ratios and m in scores}
if points:
    show.scatter(points, "step over vanilla, measured", "accuracy, %", "cifar10, preactresnet18, measured" + ("" if kind == "paper" else ": accuracy of a shortened recipe"), size=(6.2, 2.9))
show.table(["method", "accuracy, %", "step over vanilla"],
           [[m, scores.get(m, "not run"), ratios[m]["median"] if m in ratios else "not run"] for m in NAMES],
           f"CIFAR-10, PreActResNet18. Accuracy of our recipe: {kind}. Step: at full width")

# %% [markdown]
# Numbers in brackets count seeds; what one seed says decides nothing. A recipe named "shortened" says nothing about the paper's accuracies.
#
# ## At equal cost
#
# Both figures compare methods after 300 epochs. But whoever can pay for 300 epochs of SAGE can pay for about 600 of vanilla, or
# for two vanilla networks whose probabilities are averaged. Does SAGE beat those? The paper does not ask. The runs that would
# answer are one parameter away:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA -p model preactresnet18 \
#     -p method vanilla -p epochs 600 -p results book/results
# ```
#
# (and at the laptop's size with `-p epochs 60 -p width 16 -p train_images 10000`).
#
# What the reported hours of CIFAR-10 would buy; and for each recipe with SAGE among our records, vanilla at twice the epochs:

# %%
def recipe(record, longer=1):
    known = {k: v for k, v in record["recipe"].items() if k not in ("precision", "channels_last", "compile")}
    return json.dumps([record["dataset"], record["model"], known | {"epochs": longer * known["epochs"]}], sort_keys=True)


said, runs = table_6[0], summary.by_method(summary.as_tuned(records.every(records.RESULTS)))
afford = {m: 300 * said[m] / said["vanilla"] for m in slow}
assert afford["sage"] > 600 and afford["comixup"] > 2000
rows = []
for key in dict.fromkeys(recipe(r) for r in runs.get("sage", [])):
    own = [r for r in runs["sage"] if recipe(r) == key]
    twin = [r for r in runs.get("vanilla", []) if recipe(r) == recipe(own[0], 2)]
    rows.append([own[0]["dataset"]["name"], own[0]["model"]["name"], own[0]["recipe"]["epochs"],
                 *(summary.spread(map(summary.final, found)) if found else "not run" for found in (own, twin)), own[0]["kind"]])
display(show.table(["300 epochs of", "cost as much as vanilla for"], [[m, f"{n:.0f} epochs"] for m, n in afford.items()]),
        show.table(["data", "network", "epochs", "SAGE, %", "vanilla, twice the epochs, %", "recipe of SAGE"], rows))

# %% [markdown]
# The ensemble cannot be read off our records, which hold accuracies and no probabilities. It would also cost twice
# as much to *use*, which SAGE does not.
#
# ## What would break it
#
# The natural way to time two methods is to time one, then the other. But machines drift: they warm up, and neighbours come and
# go. Here is a machine that only exists as a number, on which work takes longer the later it is done. One side is one unit of
# work, the other two, so that the true ratio is 2.

# %%
class Machine:
    now, drift = 0.0, 0.25  # seconds; how much slower after each

    def work(self, units):
        self.now += 0.1 * units * (1 + self.drift * self.now)


def ratio_of(order, drift=0.25):
    """Time of "two" over "one": each group of sides in `order` is timed in turn, one group after the other."""
    machine, found = Machine(), {}
    machine.drift = drift
    sides = {"one": lambda: machine.work(1), "two": lambda: machine.work(2)}
    with mock.patch.object(timing, "_now", lambda: machine.now):
        for group in order:
            found |= timing.interleaved({k: sides[k] for k in group}, rounds=9)
    return timing.ratio(found["two"], found["one"])["median"]


orders = {"one, then two": [["one"], ["two"]], "two, then one": [["two"], ["one"]], "in turn": [["one", "two"]]}
drifting, steady = ({k: ratio_of(order, drift) for k, order in orders.items()} for drift in (0.25, 0))
assert all(abs(r - 2) < 1e-6 for r in steady.values()) and abs(drifting["in turn"] - 2) < 0.1
assert drifting["one, then two"] > 2.4 and drifting["two, then one"] < 1.6
display(show.table(["timed", "steady machine", "drifting machine"], [[k, steady[k], drifting[k]] for k in orders], "The true ratio is 2"),
        show.source(timing.interleaved, timing.ratio))

# %% [markdown]
# **What to see.** Timed one after the other, the second side is blamed for the drift. In turn, what is left is the drift within
# a round. That is why `timing.interleaved` gives each side one turn a round, and why `timing.ratio` divides within
# rounds.
#
# On a GPU there is a second trap. A call returns before its work is done, and a clock read at once measures how fast the
# host can ask. `interleaved` waits for the device before it reads the clock.
#
# ## Exercises
#
# ### Exercise 13.1
#
# Saliency is smoothed before it is used, so it may not need every pixel. What would SAGE cost if its clean pass saw images of half
# the height and width, with reuse and without?

# %% tags=["hide-cell"]
half = 2 * sum(n for _, n, _ in layers_of(name, 16)[1])
cheap = {reuse: (k * half / forward[name] + 3) / 3 for reuse, k in (("with reuse", 3), ("without", 2))}
# a quarter of the places, so a quarter of each unit: one and a quarter vanilla steps, or one and a sixth
assert abs(cheap["with reuse"] - 5 / 4) < 1e-3 and abs(cheap["without"] - 7 / 6) < 1e-3
show.table(["clean pass at 16 × 16", "over vanilla"], cheap.items())

# %% [markdown]
# ### Exercise 13.2
#
# The authors' code tests on 10,000 images after every epoch. Do the hours of Table 6 include that? What would the ratio of SAGE to vanilla
# be if they did, and which reading is nearer to the reported ratios?

# %% tags=["hide-cell"]
test_units = 10_000 / 50_000  # forward alone, for a fifth as many images
with_tests = (6 + test_units) / (3 + test_units)
reported = [said["sage"] / said["vanilla"] for said in table_6]
assert 1.93 < with_tests < 1.94 and all(abs(r - 2) < abs(r - with_tests) for r in reported)
# two is nearer in both rows, though within the scatter of the hours; the code's own clock of an epoch leaves the test out
show.table(["hours of", "SAGE over vanilla"], [["training", 2.0], ["training and tests", with_tests],
                                               *[[f"Table 6, {said['dataset']}", r] for said, r in zip(table_6, reported, strict=True)]])

# %% [markdown]
# ### Exercise 13.3
#
# The authors' search values a shift on a canvas of 96 × 96, with about eight operations a cell. How many operations would a search of
# *all* shifts take for one image, and which share of a vanilla step is that? [Chapter 8](08_search.ipynb) has a clock for such
# a loop. Does the count agree with it?

# %% tags=["hide-cell"]
cells = 63 * 63 * 96 * 96
share_counted = 8 * cells / (WORK[name]["vanilla"] * 1e9)
assert 0.05 < share_counted < 0.15
search, loop = next((record, r["seconds"]["median"]) for record in reversed(records.timings(records.RESULTS, "search_time"))
                    for r in record["rows"] if (r["name"], r["fraction"], r["size"]) == ("canvas", 1.0, 32))
same = [r for r in TIMED if r["hardware"] == search["hardware"] and r["parameters"]["model"] == name and r["parameters"]["width"] == 64]
steps_long = [loop / search["parameters"]["pairs"] / (row["seconds"]["median"] / r["parameters"]["batch"])
              for r in same[-1:] for row in r["rows"] if row["name"] == "vanilla"]
# it does not: by the count a search is a fraction of a step, by the clock it is many. Each operation of the loop reads and
# writes a whole canvas, where a convolution uses each number that it has read many times
show.table(["a search of all shifts by the loop", "vanilla steps"],
           [["counted", share_counted], ["by the clock", *(steps_long or ["not run"])]])
