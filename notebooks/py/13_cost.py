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
# SAGE passes each batch through the network twice. The paper {cite:p}`ma2022sage` says that this
# about doubles the training time, that nothing noticeable is added to the two passes, and that the
# closest baselines cost far more. Its evidence is Table 6, which lists GPU hours, and two figures
# that plot accuracy against those hours, 5b and 7.
#
# Hours depend on a machine. So we first count what a training step must compute, which is the same
# on any machine. Then we compare the paper's hours with that count, and our own step times with
# both. At the end we ask what twice the time would buy without SAGE.

# %% tags=["parameters"]
seed = 0
results = ""  # folder of records; empty: the book's own

# %% tags=["setup"]
import itertools
import json
from unittest import mock

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import display

from sagelib import catalog, methods, models, show
from sagelib.bench import plans, records, summary, timing
from sagelib.bench.quantities import ACCURACY
from sagelib.bench.statistics import Family, difference, rank
from sagelib.losses import one_hot

table_1, table_6 = records.reported(1), records.reported(6)
METHODS = list(table_6[0])[2:]
assert len(METHODS) == 8 and all(list(row)[2:] == METHODS for row in table_1 + table_6)

# %% [markdown]
# ## One unit, three times
#
# Nearly all arithmetic of these networks is in convolutions. Each number in a convolution's output
# is a sum over one filter. So the whole output takes, for each image,
#
# ```{math}
# :label: eq-macs
# N = \underbrace{C_\text{out}\, H_\text{out}\, W_\text{out}}_{\text{numbers in the output}} \cdot
# \underbrace{(C_\text{in} / g)\; k_h\, k_w}_{\text{weights in a filter}}
# ```
#
# multiplications, each with an addition, where $g$ is the number of groups. Training also needs the
# gradient with respect to the layer's input and the gradient with respect to its weights. What do
# they cost? Written as loops, all three visit the same combinations of a weight and a place:

# %%
g = torch.Generator().manual_seed(seed)
x, w, grad_out = (torch.randn(size, generator=g) for size in ((2, 6, 5), (3, 2, 3, 3), (3, 6, 5)))
wide = F.pad(x, (1, 1, 1, 1))
out, grad_wide, grad_w, count = torch.zeros(3, 6, 5), torch.zeros_like(wide), torch.zeros_like(w), 0
for o, row, column in itertools.product(range(3), range(6), range(5)):  # each number in the output
    for c, down, right in itertools.product(range(2), range(3), range(3)):  # each weight of its filter
        weight, place = (o, c, down, right), (c, row + down, column + right)
        out[o, row, column] += w[weight] * wide[place]
        grad_wide[place] += w[weight] * grad_out[o, row, column]
        grad_w[weight] += wide[place] * grad_out[o, row, column]
        count += 1

x.requires_grad_()
w.requires_grad_()
expected = F.conv2d(x[None], w, padding=1)[0]
expected.backward(grad_out)
torch.testing.assert_close(expected, out)
torch.testing.assert_close(x.grad, grad_wide[:, 1:-1, 1:-1])
torch.testing.assert_close(w.grad, grad_w)
assert count == out.numel() * w[0].numel()

# %% [markdown]
# The forward pass, the gradient with respect to the inputs and the gradient with respect to the
# weights take one unit each. Write $F$, $D$ and $W$ for them. A vanilla step takes three units.
# SAGE makes a clean pass and a mixed pass. If the clean gradient with respect to the weights is not
# used (`reuse=0`), it need not be computed:
#
# ```{math}
# :label: eq-step-cost
# \begin{aligned}
# \frac{\text{SAGE}}{\text{vanilla}} &= \frac{(F + D + W) + (F + D + W)}{F + D + W} = 2 \\[0.4em]
# \frac{\text{without reuse}}{\text{vanilla}} &= \frac{(F + D) + (F + D + W)}{F + D + W} = \frac{5}{3}
# \end{aligned}
# ```
#
# The equation leaves out one small thing: the first layer needs no gradient with respect to its
# input, unless saliency asks for it.
#
# ## A whole network
#
# A hook on each convolution and linear layer sees the shape of its output. The sum must equal what
# PyTorch's own counter finds, which counts a multiplication and an addition as two operations.

# %%
def layers_of(model, size=32):
    """A network at full width, and its layers with (multiply-adds, numbers in the output) for one image."""
    net, layers = catalog.load(models, model, classes=10), []

    def note(layer, _, z):
        layers.append((layer, z.numel() * layer.weight[0].numel(), z.numel()))

    hooks = [layer.register_forward_hook(note) for layer in net.modules()
             if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return net, layers


torch.manual_seed(seed)
nets, layers = {}, {}
for row in table_6:
    nets[row["model"]], layers[row["model"]] = layers_of(row["model"])
forward = {model: 2 * sum(macs for _, macs, _ in entries) for model, entries in layers.items()}
first = {model: 2 * entries[0][1] for model, entries in layers.items()}
for model, net in nets.items():
    counted_by_torch = timing.operations(lambda net=net: net(torch.zeros(1, 3, 32, 32)))
    assert counted_by_torch == (forward[model], 0) and first[model] < 0.004 * forward[model]
show.table(["network", "layers", "10⁶ multiply-adds per image", "in the first layer, %"],
           [[m, len(layers[m]), forward[m] / 2e6, 100 * first[m] / forward[m]] for m in nets])

# %% [markdown]
# ## A whole step of each method
#
# The same counter can watch a real training step of each method,
# `method.loss(net, x, y).backward()`, on two images. Divided by one forward pass, its two sums say
# how many forward passes a method makes, and how many units of backward work.

# %%
def counted(net, name, **options):
    """Forward and backward operations of one training step on two images."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    method, labels = catalog.load(methods, name, **options).seed(seed), one_hot(torch.tensor([0, 1]), 10)
    return timing.operations(lambda: method.loss(net, images, labels).backward())


name = "preactresnet18"
steps = {m: counted(nets[name], m) for m in METHODS} | {"sage, reuse 0": counted(nets[name], "sage", reuse=0)}
units = {m: [operations / (2 * forward[name]) for operations in both] for m, both in steps.items()}
times = {m: sum(both) / sum(steps["vanilla"]) for m, both in steps.items()}
whole = {m: round(sum(both)) for m, both in units.items()}
assert abs(times["sage"] - 2) < 0.005 * 2 and abs(times["sage, reuse 0"] - 5 / 3) < 0.005 * 5 / 3
assert all(steps[m] == steps["vanilla"] for m in ("mixup", "cutmix", "manifold_mixup", "saliencymix"))
assert steps["puzzlemix"] == steps["sage, reuse 0"] and abs(times["comixup"] - times["sage"]) < 1e-3
for m in METHODS:  # whole units, less the gradient with respect to the images where nobody asks
    assert abs(sum(steps[m]) / (2 * (whole[m] * forward[name] - first[name])) - 1) < 1e-3
show.table(["method", "forward", "backward", "over vanilla"], [[m, *both, times[m]] for m, both in units.items()],
           f"Units of work in a step, {name}. A unit is a forward pass.")

# %% [markdown]
# **What to see.** Counted in passes, four methods need what vanilla needs, and SAGE and Co-Mixup
# need twice as much. Puzzle Mix is between them, because its saliency pass computes no gradient
# with respect to the weights. Its authors' code computes that gradient too and throws it away,
# which makes six units.
#
# Two statements of the paper need care. Section 3.4 says that earlier methods discard all that they
# compute for saliency. Puzzle Mix does. Co-Mixup, with its authors' settings, keeps the clean
# gradient as a regulariser: four backward units. And reuse, says the introduction, "further
# decreases the amortized training time". In one step it saves nothing: it *adds* one unit to five.
# It may save steps, if a step on both gradients teaches more. But the paper compares methods at the
# same number of steps.
#
# This table contains neither the search nor the solvers of Puzzle Mix and Co-Mixup: the counter
# sees no element-wise work. [Chapter 8](08_search.ipynb) times the search and
# [chapter 7](07_baselines.ipynb) the solvers.
#
# ## A counter is not an oracle
#
# Does the counter agree with our sum for the other network too? For the forward pass it did. For
# the whole step:

# %%
# NBVAL_IGNORE_OUTPUT
rows = []
for model in nets:
    by_counter, by_hand = sum(counted(nets[model], "vanilla")), 2 * (3 * forward[model] - first[model])
    grouped = 4 * sum(macs * (layer.groups - 1) for layer, macs, _ in layers[model]
                      if isinstance(layer, torch.nn.Conv2d))
    assert by_counter - by_hand in (0, grouped)
    rows.append([model, by_hand / 2e9, by_counter / 2e9, by_counter / by_hand])
show.table(["network", "10⁹ operations per step and image, by hand", "by the counter", "ratio"], rows,
           f"PyTorch {torch.__version__}")

# %% [markdown]
# **What to see.** ResNeXt29 has convolutions in four groups. Where the ratio is 1.25, PyTorch's
# counter forgets the groups in the gradient with respect to the weights and counts it $g$ times.
# The `assert` says that this is the only difference allowed. The loops above know better, so for
# ResNeXt29 we use the sum by hand.
#
# ## Table 6
#
# Each table shows the paper's hours, their ratio to vanilla, the counted ratio, and our measured
# ratio. We measure with [the experiment](experiments/step_time.ipynb), which gives each method one
# turn per round; the brackets show the range over the rounds. There is a table for each machine and
# setting with a record of all eight methods. The ratio divides by half the time of two vanilla
# steps, which are timed beside the single one. So vanilla's own ratio says how far to trust the
# clock.
#
# Compare ratios with care, and seconds not at all: the paper used a T4, and each caption names our
# machine.

# %% tags=["setup"]
UNITS = dict(vanilla=3, mixup=3, cutmix=3, manifold_mixup=3, saliencymix=3, puzzlemix=5, comixup=6, sage=6)  # as counted
COUNTED = {m: units / UNITS["vanilla"] for m, units in UNITS.items()}


def network_words(record):
    """The network that a record timed, in words, with a note where its parameter says something else."""
    (model, width), asked = timing.timed_network(record), record["parameters"].get("width")
    note = f" (the record's parameter says {asked}; the experiment did not pass it to this network)"
    return f"{model} of width {width}" + ("" if asked in (None, 0, width) else note)


def reading(model, where, ratios):
    """One line of text: where the counted ratio lies beside the range of the measured ones."""
    sign = {m: (COUNTED[m] < r["low"]) - (COUNTED[m] > r["high"]) for m, r in ratios.items() if m in COUNTED}
    parts = [f"{word} for {', '.join(m for m in sign if sign[m] == s)}" for s, word in (
        (0, "within the range of the rounds"), (1, "below it"), (-1, "above it")) if s in sign.values()]
    return f"- {model} on {where}: the counted ratio is {'; '.join(parts)}."


# %% tags=["records", "nbval-ignore-output"]
folder = results or records.RESULTS
timings, readings = records.timings(folder, "step_time"), []
for said in table_6:
    model, over = said["model"], {m: said[m] / said["vanilla"] for m in METHODS}
    newest = timing.by_setup(timing.with_methods(timings, model, METHODS))
    for where, record in newest.items() or [("not run", None)]:
        ratios, network = timing.over_vanilla(record), network_words(record) if record else model
        shown = {m: "{median:.2f} ({low:.2f} to {high:.2f})".format(**r) for m, r in ratios.items()}
        rows = [[m, said[m], over[m], COUNTED[m], shown.get(m, "not run")] for m in METHODS]
        display(show.table(["method", "hours, reported", "over vanilla, reported", "counted", "measured (range)"],
                           rows, f"Table 6, {said['dataset']}, {network}. Measured on: {where}."))
        readings += [reading(model, where, ratios)] if record else []
show.Markdown("\n".join(readings) or "No record times all eight methods yet, so nothing is measured beside the paper.")

# %% [markdown]
# **What to see.** For six of the eight methods the paper's hours agree with the count to within six
# per cent. SAGE is one of them, and its factor of two is the central claim of the paper's section
# on cost. In the paper's hours Puzzle Mix and Co-Mixup cost far more than their passes.
#
# Our measurements can neither support nor contradict what the paper says of Puzzle Mix and
# Co-Mixup. The paper timed their authors' implementations. We time our own, whose solvers are
# different and exact, so a small ratio here says nothing about theirs. Nor does a ratio from one
# core of a CPU say anything about a GPU: on a CPU the passes are slow, and whatever comes beside
# them looks small.
#
# A measured ratio can differ from the counted one for three reasons: mixing, with the solvers;
# noise, whose size the range shows; and units of equal work that take unequal time. SAGE can come
# out a little below two, since it updates the weights once for its two passes.
#
# ### Do trained maps cost more?
#
# The networks that are timed above are untrained, and they see painted shapes. Passes take equally
# long whatever the weights are, and so does SAGE's search. But Puzzle Mix and Co-Mixup solve a
# problem for each batch, and a solver may need longer for some saliency maps than for others. So
# the same experiment times `mix` alone on the weights and images of a trained network, and in the
# same rounds with an untrained network on the same images.

# %% tags=["records", "nbval-ignore-output"]
def of_trained(record):
    """Rows: method, the two times of `mix` alone, their ratio and its range."""
    return [[row["name"], 1000 * row["untrained_mix_seconds"]["median"],
             1000 * row["mix_seconds"]["median"],
             "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["mix_over_untrained"])]
            for row in record["rows"] if "mix_over_untrained" in row]


on_trained = {timing.setup(r): r for r in timings if of_trained(r)}
for where, record in on_trained.items():
    display(show.table(["method", "untrained, ms", "trained, ms", "trained over untrained"],
                       of_trained(record),
                       f"Time of `mix` alone, {network_words(record)}: {where}"))
None if on_trained else show.Markdown("Step times on a trained network: not run.")

# %% [markdown]
# ### Can the hours be right?
#
# The counted work of 300 epochs of 50,000 images, divided by the hours, is a rate. The data sheet
# of [NVIDIA's T4](https://www.nvidia.com/en-us/data-center/tesla-t4/) promises at most
# $8.1 \cdot 10^{12}$ operations per second in single precision (fast convolution algorithms execute
# fewer than we count). And the other way round: how many milliseconds of each of the 150,000 steps
# do the passes not explain?

# %%
assert all(whole[m] == units for m, units in UNITS.items())
WORK = {model: {m: (UNITS[m] * forward[model] - first[model]) / 1e9 for m in METHODS} for model in nets}
images, batches, peak = 300 * 50_000, 300 * 500, 8.1e12
rows, share, unexplained, same_work = [], {}, {}, ("mixup", "cutmix", "manifold_mixup", "saliencymix")
for said in table_6:
    model, over = said["model"], {m: said[m] / said["vanilla"] for m in METHODS}
    assert abs(over["sage"] - 2) < 0.05 and over["comixup"] > over["puzzlemix"] > over["sage"]
    assert all(abs(over[m] - 1) < 0.06 for m in same_work)
    share[model] = images * WORK[model]["vanilla"] * 1e9 / (3600 * said["vanilla"]) / peak
    per_step = {m: 3.6e6 * said[m] / batches for m in METHODS}
    extra = {(m, k): per_step[m] - k / 3 * per_step["vanilla"]
             for m, k in (("sage", 6), ("puzzlemix", 5), ("puzzlemix", 6), ("comixup", 6))}
    unexplained[model] = extra
    scatter = [per_step[m] - per_step["vanilla"] for m in same_work]
    rows.append([model, 100 * share[model], per_step["vanilla"], f"{min(scatter):.1f} to {max(scatter):.1f}", *extra.values()])
    assert abs(extra["sage", 6]) < 0.05 * per_step["vanilla"] and extra["comixup", 6] > 300 and extra["puzzlemix", 6] > 50
outputs = {m: sum(size for *_, size in entries) / (forward[m] / 2) for m, entries in layers.items()}  # per multiply-add
preact, resnext = unexplained.values()
assert outputs["resnext29_4_24"] > 3 * outputs["preactresnet18"]
assert resnext["puzzlemix", 6] > 1.3 * preact["puzzlemix", 6] and resnext["comixup", 6] < 0.9 * preact["comixup", 6]
assert 0.3 < share["preactresnet18"] < 0.8 and 0.2 < share["resnext29_4_24"] < 0.3
show.table(["network", "of the T4's peak, %", "vanilla step, ms", "beyond: the four of 3 units", "SAGE, 6 units",
            "Puzzle Mix, 5", "Puzzle Mix, 6", "Co-Mixup, 6"], rows,
           "What the reported hours say, in milliseconds per step beyond the passes")

# %% [markdown]
# **What to see.** Half of the peak is plausible for PreActResNet18. ResNeXt29 reaches a quarter. It
# writes more than three times as many numbers for each multiplication, so memory rather than
# arithmetic may limit it; that is a hypothesis.
#
# SAGE's time beyond its passes is no more than the differences between methods of equal work. So
# these hours show no cost of a search, even of the authors' loop, and a cost of a few milliseconds
# could not be seen in them. The two solvers take tens and hundreds of milliseconds. Both rows have
# as many images of the same size in a batch, so a solver should take the same time in both. By
# subtraction it does not: the result for Puzzle Mix is higher with ResNeXt29, and that for Co-Mixup
# lower. Such differences give the order of magnitude, not digits.
#
# ### A ratio has two machines in it
#
# In the authors' code the solvers' labellings run on the host, the passes on the GPU. If a vanilla
# step takes $t$ on the device and the solver $r$ on the host, a method of $k$ units costs
# $k/3 + r/t$ vanilla steps. Now make the device faster and leave the host as it is (for Puzzle Mix
# this simplifies: it moves its patches on the device):

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
# **What to see.** The dots are the reported hours on CIFAR-10. On a device tens of times slower,
# such as one core of a CPU, the published code would cost nearly two vanilla steps for all three
# methods (`sagelib`'s Puzzle Mix, with five units, nearly 5/3). On one a hundred times faster
# Co-Mixup would cost hundreds of vanilla steps. For these two methods a ratio measured on a CPU
# says little about a GPU.
#
# SAGE's flat line assumes a search whose time shrinks with that of the passes and that never waits
# for the host. The authors' loop asks the host some two hundred times per step, so on a fast device
# its line would rise too. Its few milliseconds are smaller than the scatter of the hours, so we
# draw none. How far `sagelib` is from the flat line on a real GPU is measured below. Its solvers
# for Puzzle Mix and Co-Mixup have kernels for an NVIDIA GPU as well; the captions of Table 6 show
# whether a record times them there.
#
# ## Where the time of a SAGE step goes
#
# Each part of one step is timed by itself. There is one figure for each machine, from its newest
# record of PreActResNet18 at full width that has the parts. The scale is logarithmic: read the
# labels.

# %% tags=["records", "nbval-ignore-output"] mystnb={"image": {"alt": "Horizontal bars on a logarithmic scale: milliseconds of each part of a SAGE step, from the two passes down to crop and flip, each labelled with its milliseconds and its share of the sum."}}
def parts_of(record):
    """part of a SAGE step -> milliseconds, of a record of step times; {} where it has no parts."""
    return {row["name"].removeprefix("part: "): 1000 * row["seconds"]["median"] for row in record["rows"]
            if row["name"].startswith("part: ")}


def draw_parts(record):
    spent = parts_of(record)
    total = sum(spent.values())
    passes, mixing = (sum(spent.get(part, 0) for part in parts) / total for parts in (
        ("clean pass", "mixed pass"), ("saliency and blur", "search", "mix")))
    _, axis = plt.subplots(figsize=(6.8, 3), layout="constrained")
    drawn = axis.barh(list(spent), list(spent.values()), log=True, color=show.COLOURS["sage"])
    axis.bar_label(drawn, [f"{ms:,.{0 if ms > 10 else 2}f} ms, {100 * ms / total:.2f} %" for ms in spent.values()], padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds", xlim=(min(spent.values()) / 2, 20 * max(spent.values())))
    axis.set_title(f"{network_words(record)}: {timing.setup(record)}\nthe passes {100 * passes:.1f} %, "
                   f"saliency, search and mix {100 * mixing:.1f} %", fontsize=9)
    plt.show()


at_full_width = [r for r in timings if timing.timed_network(r)[0] == "preactresnet18" and timing.at_full_width(r)]
newest = {r["hardware"]["gpu"] or r["hardware"]["cpu"]: r for r in at_full_width if parts_of(r)}
for record in newest.values():
    draw_parts(record)
None if newest else show.Markdown("Parts of a SAGE step: not run.")

# %% [markdown]
# **What to see.** The title adds the parts up. The caption of the paper's Figure 5b finds "no
# noticeable overhead besides the additional forward and backward pass". That overhead is the share
# of saliency, search and mix, and it depends on the machine in the title. Parts are timed one by
# one, so their sum is not exactly the time of a step.
#
# ## The step on a GPU
#
# On a GPU the passes are short, and what comes beside them weighs more. We timed the steps on one
# NVIDIA H200, outside a record: the rounds and their range were not kept, so these numbers have no
# error. The file `book/measured/h200_steps.csv` holds them.

# %%
timed = timing.from_csv(records.MEASURED / "h200_steps.csv")
SETTINGS = ("precision", "channels_last", "compiled", "cuda_graph")
at_settings = {}  # settings -> step -> milliseconds
for step in timed:
    at_settings.setdefault(tuple(step[key] for key in SETTINGS), {})[step["step"]] = step["milliseconds"]
hours_per_ms = 300 * 500 / 3.6e6  # 300 epochs of 500 steps
rows = [[", ".join([settings[0], *(name.replace("_", " ") for name, on in
                                   zip(SETTINGS[1:], settings[1:], strict=True) if on == "yes")]),
         side, f"{ms:.3f}",
         ms / taken["vanilla"] if "vanilla" in taken else "no vanilla step timed",
         f"{ms * hours_per_ms:.2f}"]
        for settings, taken in at_settings.items() for side, ms in taken.items()]
display(show.table(["settings", "step", "milliseconds", "over vanilla", "300 epochs, hours"], rows,
                   "Measured outside a record on one {gpu} with commit {commit}, torch {torch}: {network} at full width, "
                   "batch of {batch}. The ratio is to vanilla with the same settings.".format(**timed[0])))
compiled, eager = at_settings["bf16", "yes", "yes", "yes"], at_settings["bf16", "yes", "no", "yes"]
over = [taken["sage"] / taken["vanilla"] for taken in at_settings.values() if "vanilla" in taken]
search, reuse = (100 * compiled[side] / compiled["sage"] - 100 for side in ("sage, fraction 1", "sage, reuse 0"))
graph = at_settings["bf16", "yes", "no", "no"]["sage"] / eager["sage"]
assert min(over) == over[-1] > 2 and search > 5 and -100 / 12 < reuse < 0 and graph > 2  # what the text goes by
show.Markdown(f"""- With the same settings a SAGE step takes {min(over):.2f} to {max(over):.2f} vanilla steps.
- A search of all shifts instead of 1 % makes the compiled step {search:.0f} % longer.
- `reuse=0` makes the compiled step {-reuse:.0f} % shorter, where the count promises a sixth.
- Without a CUDA graph the step of the network that is not compiled takes {graph:.1f} times as long.""")

# %% [markdown]
# **What to see.** The count says exactly 2. The ratio comes nearest to it in fp32, where the passes
# take longest. That fits a fixed cost beside the passes, but three ratios do not prove it. On this
# GPU an exhaustive search is not free, although the clock of a slow CPU may not show its cost
# ([chapter 8](08_search.ipynb)). `reuse=0` saved little here, because the compiled network computed
# the gradient with respect to its weights even where only the images' gradient is asked for. Both
# have been changed since: such a pass computes no gradient with respect to the weights, and the
# search has a kernel of its own. [The log](../book/log.md) has the prediction for each change, and
# says which are not yet measured on a GPU. Without a CUDA graph the device waits for the host to
# launch the next kernel.
#
# The last column is Table 6 on this machine: steps alone, without evaluation, checkpoints and
# compilation. The paper's T4 took 3.35 hours for vanilla and 6.83 for SAGE. Records of whole runs
# on a GPU follow. Their hours are training seconds: compilation counts, evaluation and checkpoints
# do not. The last column is 300 times the median epoch. A run that shared its GPU with another
# process took longer; `vanilla-seed0-ff24d579` did (1.06 s an epoch alone, about 2.3 s shared).

# %% tags=["records", "nbval-ignore-output"]
whole = [r for r in records.every(results or records.RESULTS)
         if r["hardware"].get("gpu") and "method" in r and r["dataset"]["name"] == "cifar10"]
rows_of_runs = [[r["method"]["name"], r["hardware"]["gpu"], plans.recipe_text(r),
                 f"{r['seconds']['training'] / 3600:.3f}",
                 f"{300 * r['seconds']['epoch'] / 3600:.2f}"]
                for r in whole]
if whole:
    display(show.table(["method", "GPU", "recipe", "hours", "hours of 300 such epochs"],
                       rows_of_runs))
else:
    display(show.Markdown("There is no record of a whole run on a GPU: **not run**."))

# %% [markdown]
# ## Figures 5b and 7
#
# These figures plot accuracy against hours, so the upper left corner is best. The caption of
# Figure 5b names no data set; its text speaks of CIFAR-100. Figure 7 shows both data sets. Table 6
# has hours for CIFAR-100 with ResNeXt29 only. The accuracy that belongs to them is ResNeXt29's in
# Table 1, and we draw that. If the paper's plot has PreActResNet18's accuracy there, it joins two
# networks. The dashed lines go through vanilla.

# %% mystnb={"image": {"alt": "Two scatter plots of accuracy against reported GPU hours, CIFAR-10 with PreActResNet18 and CIFAR-100 with ResNeXt29. Four methods stand near vanilla's hours, SAGE at twice as many and highest, Puzzle Mix further right, Co-Mixup furthest."}}
accuracy = {(row["dataset"], row["model"]): row for row in table_1}
for said, figure in zip(table_6, ("Figure 7", "Figure 7, and 5b"), strict=True):
    right = accuracy[said["dataset"], said["model"]]
    show.scatter({m: (said[m], right[m]) for m in METHODS}, "GPU hours on a T4", "accuracy, %",
                 f"{figure}, from Tables 1 and 6: {said['dataset']}, {said['model']}", size=(6.2, 2.9))

# %% [markdown]
# We check the text's claims on the reported numbers, one by one:

# %%
slow = ("puzzlemix", "comixup", "sage")  # saliency from the network itself
frontier = {}
for said in table_6:
    right = accuracy[said["dataset"], said["model"]]
    assert min(slow, key=said.get) == "sage" == max(METHODS, key=right.get)
    assert all(right[m] > right["saliencymix"] for m in slow) and said["saliencymix"] < 1.05 * said["vanilla"]
    frontier[said["dataset"]] = [m for m in METHODS
                                 if not any(said[o] < said[m] and right[o] > right[m] for o in METHODS)]
best = {row["model"]: max(METHODS, key=row.get) for row in table_1 if row["dataset"] == "cifar100"}
assert best == {"preactresnet18": "sage", "resnext29_4_24": "sage", "wrn16_8": "puzzlemix"}
ten = accuracy["cifar10", "preactresnet18"]
assert ten["comixup"] < ten["cutmix"] and table_6[0]["comixup"] > 7 * table_6[0]["cutmix"]
assert frontier == {"cifar10": ["mixup", "cutmix", "manifold_mixup", "sage"],
                    "cifar100": ["vanilla", "mixup", "saliencymix", "sage"]}
show.table(["data", "no other method is both faster and more accurate"], [[d, ", ".join(ms)] for d, ms in frontier.items()])

# %% [markdown]
# **What to see.** The claims about order hold on the reported numbers. SAGE is the fastest of the
# three methods whose saliency comes from the network, and the most accurate of all in both rows.
# SaliencyMix is fast and gains less than those three. On CIFAR-10 Co-Mixup is even less accurate
# than CutMix, at more than seven times its hours. SAGE is the "most accurate on CIFAR-100" for two
# networks of three: with WRN16-8, which has no hours in Table 6, it is Puzzle Mix.
#
# Two statements mislead. The "minimal" overhead of the abstract and the conclusion is a factor of
# two over vanilla; it is small only beside Puzzle Mix and Co-Mixup. And Mixup, CutMix and Manifold
# Mixup are *not* fast because "the data augmentation is performed during data loading". Manifold
# Mixup mixes the outputs of hidden layers, which no data loader has, and in the authors' published
# code all three run [inside the training step](appendix_paper_and_code.ipynb). They are fast
# because mixing two tensors takes very little time beside a pass.
#
# ### As measured
#
# The same plot from our own records, for each recipe with records. Accuracy and cost must belong to
# the same network: the cost is the step time of a network of *that width*, from the newest record
# that times these methods there. Without such a record we plot the counted work, which hardly
# depends on the width, and the axis says so. The count leaves out search and mixing, which weigh
# more in a narrow network. We do not use the trainings' own seconds, since some runs shared their
# machine with other work.

# %% tags=["records", "nbval-ignore-output"] mystnb={"image": {"alt": "Scatter plot of measured accuracy against the cost of a step over vanilla's, a mark for each method; the axis says whether the cost is measured or counted."}}
def step_costs(width, names):
    """(axis label, method -> cost of a step over vanilla) of PreActResNet18 at this width: measured, else counted."""
    there = [r for r in timings if timing.timed_network(r) == ("preactresnet18", width)
             and set(names) <= timing.over_vanilla(r).keys()]
    if not there:
        return f"work over vanilla's, counted (no timing of these at width {width})", COUNTED
    ratios = timing.over_vanilla(there[-1])
    return f"step over vanilla's at width {width}, {timing.setup(there[-1])}", {m: r["median"] for m, r in ratios.items()}


trained = records.every(folder)
recipes = summary.runs_by_row(trained, "cifar10", "preactresnet18", {m: (m, {}) for m in METHODS})
single = [f"- {next(iter(ours))}: {kind}" for kind, ours in recipes.items() if len(ours) == 1]
for ours in recipes.values():
    if len(ours) == 1:
        continue
    first = next(iter(ours.values()))[0]
    where = f"CIFAR-10, PreActResNet18 of width {first['model']['width']}"
    label, cost = step_costs(first["model"]["width"], ours)
    scores = {m: summary.spread(map(ACCURACY.value, runs)) for m, runs in ours.items()}
    show.scatter({m: (cost[m], score.mean) for m, score in scores.items()}, label, "accuracy, %",
                 f"{where}, recipe {plans.recipe_name(first)}", size=(6.2, 2.9))
    ranking = rank(ours, ACCURACY)
    ranks = ranking.ranks if ranking.decides else {}
    display(show.table(["method", "accuracy, %", "rank", label],
                       [[m, scores.get(m, "not run"), ranks.get(m, ""), cost.get(m, "")]
                        for m in METHODS],
                       f"{where}. The recipe is {plans.recipe_text(first)}."))
notes = ["Recipes with one method, which compare nothing:", "", *single] if single else []
show.Markdown("\n".join(notes if recipes else ["Accuracy on CIFAR-10 with PreActResNet18: not run."]))

# %% [markdown]
# Accuracy is the mean ± standard deviation (number of seeds). Methods whose accuracies are not told
# apart share a rank; there is no rank where nothing is decided ([chapter
# 11](11_image_classification.ipynb) has the rule). A recipe that
# is not the paper's neither supports nor contradicts the paper's accuracies, and numbers of two
# recipes do not compare.
#
# ## At equal cost
#
# Both figures compare methods after 300 epochs. But anyone who can pay for 300 epochs of SAGE can
# pay for about 600 of vanilla, or for two vanilla networks whose probabilities are averaged. Does
# SAGE beat those? The paper does not ask. The runs that would answer it are one parameter away:
#
# ```
# papermill notebooks/experiments/train.ipynb OUT.ipynb -p dataset cifar10 -p root DATA -p model preactresnet18 \
#     -p method vanilla -p epochs 600 -p results book/results
# ```
#
# (and at the laptop's size with `-p epochs 60 -p width 16 -p train_images 10000`).
#
# First, what the reported hours of CIFAR-10 would buy:

# %%
said = table_6[0]
afford = {m: 300 * said[m] / said["vanilla"] for m in slow}
assert afford["sage"] > 600 and afford["comixup"] > 2000
show.table(["300 epochs of", "cost as much as vanilla for"], [[m, f"{epochs:.0f} epochs"] for m, epochs in afford.items()])

# %% [markdown]
# Then, for each recipe with SAGE among our records, vanilla with the same recipe and twice the
# epochs:

# %% tags=["records", "nbval-ignore-output"]
def setting(record, longer=1):
    """A record's data, network and recipe with so many times its epochs, as text; memory layout does not count."""
    recipe = {k: v for k, v in record["recipe"].items() if k != "channels_last"}
    recipe["epochs"] *= longer
    return json.dumps([record["dataset"], record["model"], record["method"]["loss"], recipe], sort_keys=True)


def of_setting(method, key):
    """The tuned runs of a method with that setting, one for each seed: the first that finished."""
    runs = [r for r in summary.as_tuned(trained) if r["method"]["name"] == method and setting(r) == key]
    return list({r["seed"]: r for r in sorted(runs, key=lambda r: r["finished"], reverse=True)}.values())


rows, gaps, sage = [], {}, [r for r in summary.as_tuned(trained) if r["method"]["name"] == "sage"]
for key, record in {setting(r): r for r in sage}.items():
    own, longer = of_setting("sage", key), of_setting("vanilla", setting(record, 2))
    scores = [summary.spread(map(ACCURACY.value, runs)) if runs else "not run" for runs in (own, longer)]
    names, gap = (record["dataset"]["name"], record["model"]["name"]), difference(own, longer, ACCURACY)
    label = f"{', '.join(names)}, {record['kind']}"
    gaps |= {label: gap} if gap else {}
    rows.append([*names, record["recipe"]["epochs"], *scores, gap or "", label])
family = Family("SAGE minus vanilla at equal cost, a difference for each recipe", gaps)
rows = [[*row[:-1], family.word(row[-1]) if row[-1] in gaps else "", row[-1].split(", ", 2)[-1]] for row in rows]
display(show.table(["data", "network", "epochs of SAGE", "SAGE, %", "vanilla, twice the epochs, %", "difference",
                    "SAGE is", "recipe of SAGE"], rows or [["not run"] * 8], family.rule if gaps else None))
show.Markdown(f"SAGE minus vanilla of twice the epochs. {family.sentence}" if gaps else
              "No record has vanilla at twice the epochs of SAGE: the question is open.")

# %% [markdown]
# Our records cannot answer for the ensemble: they hold no probabilities. An ensemble would also
# cost twice as much to *use*, which SAGE does not.
#
# ## What would break it
#
# The natural way to time two methods is to time one, then the other. But machines drift: they warm
# up, and other work comes and goes. The cell below simulates a machine on which work takes longer
# the later it is done. One side is one unit of work, the other two, so the true ratio is 2.

# %%
class Machine:
    now, drift = 0.0, 0.25  # seconds; how much slower after each

    def work(self, units):
        self.now += 0.1 * units * (1 + self.drift * self.now)


def ratio_of(order, drift=0.25):
    """Time of "two" over "one": each group of sides in `order` is timed in turn, one group after the other."""
    machine, seconds = Machine(), {}
    machine.drift = drift
    sides = {"one": lambda: machine.work(1), "two": lambda: machine.work(2)}
    with mock.patch.object(timing, "_now", lambda: machine.now):
        for group in order:
            seconds |= timing.interleaved({k: sides[k] for k in group}, rounds=9)
    return timing.ratio(seconds["two"], seconds["one"])["median"]


orders = {"one, then two": [["one"], ["two"]], "two, then one": [["two"], ["one"]], "in turn": [["one", "two"]]}
drifting, steady = ({k: ratio_of(order, drift) for k, order in orders.items()} for drift in (0.25, 0))
assert all(abs(r - 2) < 1e-6 for r in steady.values()) and abs(drifting["in turn"] - 2) < 0.1
assert drifting["one, then two"] > 2.4 and drifting["two, then one"] < 1.6
display(show.table(["timed", "steady machine", "drifting machine"], [[k, steady[k], drifting[k]] for k in orders], "The true ratio is 2"),
        show.source(timing.interleaved, timing.ratio))

# %% [markdown]
# **What to see.** When the sides are timed one after the other, the second side is blamed for the
# drift. When they take turns, only the drift within a round is left. That is why
# `timing.interleaved` gives each side one turn per round, and why `timing.ratio` divides within
# rounds.
#
# On a GPU there is a second trap. A call returns before its work is done, and a clock that is read
# at once measures how fast the host can ask. `interleaved` waits for the device before it reads the
# clock.
#
# ## Exercises
#
# ### Exercise 13.1
#
# Saliency is smoothed before it is used, so it may not need every pixel. What would SAGE cost if
# its clean pass saw images of half the height and width, with reuse and without?

# %% tags=["hide-cell"]
half = 2 * sum(macs for _, macs, _ in layers_of(name, 16)[1])
cheap = {reuse: (k * half / forward[name] + 3) / 3 for reuse, k in (("with reuse", 3), ("without", 2))}
# a quarter of the places, so a quarter of each unit: one and a quarter vanilla steps, or one and a
# sixth
assert abs(cheap["with reuse"] - 5 / 4) < 1e-3 and abs(cheap["without"] - 7 / 6) < 1e-3
show.table(["clean pass at 16 × 16", "over vanilla"], cheap.items())

# %% [markdown]
# ### Exercise 13.2
#
# The authors' code evaluates on 10,000 images after every epoch. Do the hours of Table 6 include
# that? What would the ratio of SAGE to vanilla be if they did, and which reading is nearer to the
# reported ratios?

# %% tags=["hide-cell"]
test_units = 10_000 / 50_000  # only the forward pass, for a fifth as many images
with_tests = (6 + test_units) / (3 + test_units)
reported = [said["sage"] / said["vanilla"] for said in table_6]
assert 1.93 < with_tests < 1.94 and all(abs(r - 2) < abs(r - with_tests) for r in reported)
# two is nearer in both rows, though within the scatter of the hours; the code's own clock of an
# epoch leaves the test out
show.table(["hours of", "SAGE over vanilla"], [["training", 2.0], ["training and tests", with_tests],
                                               *[[f"Table 6, {said['dataset']}", r] for said, r in zip(table_6, reported, strict=True)]])

# %% [markdown]
# ### Exercise 13.3
#
# The authors' search scores a shift on a canvas of 96 × 96, with about eight operations per canvas
# pixel. How many operations would a search of *all* shifts take for one image, and which share of a
# vanilla step is that? [Chapter 8](08_search.ipynb) times such a loop. Does the count agree with
# the clock?

# %% tags=["hide-cell"]
canvas_pixels = 63 * 63 * 96 * 96
share_counted = 8 * canvas_pixels / (WORK[name]["vanilla"] * 1e9)
assert 0.05 < share_counted < 0.15  # by the count, a search of all shifts is a small part of a step
show.table(["a search of all shifts by the loop", "vanilla steps"], [["counted", share_counted]])

# %% tags=["hide-cell", "records", "nbval-ignore-output"]
def canvas_loop(record):
    """The rows of a record of search times for the loop over all shifts of 32 × 32 images."""
    return [r for r in record["rows"] if (r["name"], r.get("fraction"), r.get("size")) == ("canvas", 1, 32)]


searches = timing.by_setup([r for r in records.timings(folder, "search_time") if canvas_loop(r)])
rows = []
for where, record in searches.items():
    here = [r for r in at_full_width if r["hardware"] == record["hardware"] and r["parameters"].get("batch")]
    vanilla = [row["seconds"]["median"] / r["parameters"]["batch"] for r in here for row in r["rows"]
               if row["name"] == "vanilla"]  # seconds per image, the newest last
    images = record["parameters"].get("pairs")
    rows += [[where, r["seconds"]["median"] / images / v] for r in canvas_loop(record) for v in vanilla[-1:] if images]
# Each operation of the loop reads and writes a whole canvas, while a convolution uses each number
# that it has read many times. So the clock can say far more vanilla steps than the count: the count
# leaves memory out.
show.table(["by the clock of", "vanilla steps"], rows or [["not run", "not run"]])
