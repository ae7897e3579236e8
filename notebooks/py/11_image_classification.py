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
# # Image classification
#
# Table 1 is the paper's main claim {cite:p}`ma2022sage`: eight ways to train, four pairs of a data set and a network, and in each
# cell the mean accuracy of three runs. SAGE is best in three rows of four, mostly by a few tenths of a percent.
#
# How does a cell come about, and how much do a few tenths say? This chapter follows a number from one training run to the table:
# a run leaves a record, records of several seeds make a mean and its uncertainty, a plan says which runs a table needs, and a
# sweep makes those that are missing. Then it reads the table.

# %% tags=["parameters"]
seed = 0
draws = 20000

# %%
import itertools
import math
import statistics
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from scipy.stats import t

from sagelib import _plan, records, show, summary, sweep

reported = {(row.pop("dataset"), row.pop("model")): row for row in records.reported(1)}
METHODS = list(reported["cifar10", "preactresnet18"])
PLANS = records.RESULTS.parent / "plans"
assert len(reported) == 4 and len(METHODS) == 8

# %% [markdown]
# ## One run, one record
#
# [The train notebook](experiments/train.ipynb) trains one network and writes one JSON file: every parameter, the seed, the whole
# learning curve, the hardware and the versions. No measured number in this book is entered by hand. Here is what one of our records
# says of itself:

# %%
every = records.every(records.RESULTS)
ROWS = {m: (m, {}) for m in METHODS}  # each method with the settings that the paper gives it for the data set
recipes = summary.measured(every, "cifar10", "preactresnet18", ROWS)
kind, ours = max(recipes.items(), key=lambda item: sum(map(len, item[1].values())))
one = next(iter(ours.values()))[0]
show.table(["part of the record", "what it says"], [
    ["recipe", one["kind"]], ["method", one["method"]["name"]], ["seed", one["seed"]], ["images", one["dataset"]["train"]], ["weights", one["model"]["parameters"]],
    ["epochs in the curve", len(one["curve"])], ["seconds an epoch", one["seconds"]["epoch"]], ["torch", one["versions"]["torch"]],
    ["trained on", one["hardware"]["gpu"] or one["hardware"]["cpu"]], ["file", records.path(one, "book/results")]])

# %% [markdown]
# The first line is the one to look for. A record that was trained as the paper's appendix B says is of the kind `paper`; every
# other says what was shortened. Numbers of a shortened recipe compare with each other. They do not compare with the paper's.

# %% mystnb={"image": {"alt": "Learning curves on CIFAR-10, test accuracy against epoch, a line for each method: its first seed."}}
show.curves({m: rs[0]["curve"] for m, rs in ours.items()}, size=(6, 3.3))  # the first seed of each

# %% [markdown]
# **What to see.** The learning rate drops twice, after a third and two thirds of the training. Before the first drop the curves swing
# by several percent from one epoch to the next; after the last they hardly move.
#
# ## Which accuracy?
#
# A curve has many accuracies, and the paper does not say which of them is in Table 1. The authors' training script prints the *median
# of the last ten epochs*; others take the *final* one, and some the *best* epoch. The best one was chosen by looking at the test set, so it is no
# longer a test. How far apart are the three?

# %%
def three_ways(record):
    accuracy = [epoch["test_accuracy"] for epoch in record["curve"]]
    return accuracy[-1], statistics.median(accuracy[-10:]), max(accuracy)


for record in itertools.chain(*ours.values()):
    found = three_ways(record)
    assert found == (summary.final(record), record["median_last10"], record["best_on_test"]["accuracy"])
    assert found[2] >= max(found[:2])
show.table(["method", "seed", "final, %", "median of the last 10, %", "best on the test set, %"],
           [[m, r["seed"], *three_ways(r)] for m, rs in ours.items() for r in rs], f"CIFAR-10, PreActResNet18. Recipe: {kind}")

# %% [markdown]
# Our records keep all three apart. Tables show the final one, which involves no choice.
#
# ## Mean, deviation, interval
#
# Train again with another seed and the accuracy is another. Let $a_1, \dots, a_n$ be the accuracies of $n$ seeds. Their mean
# estimates what the method gives; the *sample deviation* $s$ estimates how much a single run strays from that; and the *interval*
# says where the true mean lies, in 95 of 100 such experiments:
#
# ```{math}
# :label: eq-spread
# \begin{gathered}
# \bar a = \frac1n \sum_k a_k, \qquad s = \sqrt{\frac{1}{n-1} \sum_k (a_k - \bar a)^2} \\[0.4em]
# \bar a \pm t_{n-1} \, \frac{s}{\sqrt n}
# \end{gathered}
# ```
#
# $t_{n-1}$ is the 97.5 % point of Student's distribution. It replaces the familiar 1.96 because $s$ itself is a guess, and a wild
# one from few runs: the factor is 12.7 for two seeds and 4.3 for three.

# %%
def slow_spread(values):
    n, total, squares = len(values), 0.0, 0.0
    for value in values:
        total += value
    for value in values:
        squares += (value - total / n) ** 2
    s = math.sqrt(squares / (n - 1))
    return total / n, s, t.ppf(0.975, n - 1) * s / math.sqrt(n)


three = [96.8, 97.1, 96.9]  # made up
found = summary.spread(three)
for mine, obvious in zip((found.mean, found.std, found.interval), slow_spread(three), strict=True):
    assert abs(mine - obvious) < 1e-9
show.table(["seeds", "mean ± deviation (n)", "interval"], [[three, found, f"{found.mean - found.interval:.2f} to {found.mean + found.interval:.2f}"]])

# %% [markdown]
# ## What would break it
#
# Two mistakes are common: dividing by $n$ instead of $n - 1$, and using 1.96 whatever $n$ is. Draw many experiments of three runs
# each from a known distribution, and count how often the interval holds the true mean:

# %%
# NBVAL_IGNORE_OUTPUT
runs = torch.randn(draws, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
middle, s = runs.mean(1), runs.std(1)
holds = {name: 100 * float((middle.abs() <= half / 3**0.5).double().mean()) for name, half in {
    "n - 1, Student's t": t.ppf(0.975, 2) * s, "n - 1, 1.96": 1.96 * s, "n, 1.96": 1.96 * s * (2 / 3) ** 0.5}.items()}
assert abs(holds["n - 1, Student's t"] - 95) < 1 and holds["n - 1, 1.96"] < 84 and holds["n, 1.96"] < 77
show.table(["interval from three runs", "holds the true mean, %"], [*holds.items()])

# %% [markdown]
# **What to see.** The wrong intervals promise 95 % and keep about 81 and 75. Where there is no effect at all, one experiment in five,
# or in four, would look significant.
#
# ## Pairs
#
# Two methods with the same seed start from the same weights and see the images in the same order. What moves both alike cancels in
# the difference. So take differences seed by seed, and then their mean and interval:
#
# ```{math}
# :label: eq-paired
# d_k = a_k^{\text{SAGE}} - a_k^{\text{vanilla}}, \qquad k = 1, \dots, n .
# ```

# %%
made_up = {"sage": {0: 96.9, 1: 96.5, 2: 97.2, 3: 96.8}, "vanilla": {2: 95.9, 0: 95.5, 1: 95.2}}  # seed 3 has no partner
sides = [[{"method": {"name": m}, "seed": k, "final": {"accuracy": a}} for k, a in runs.items()] for m, runs in made_up.items()]
pairs = summary.paired(*sides, summary.final)
obvious = slow_spread([96.9 - 95.5, 96.5 - 95.2, 97.2 - 95.9])
assert abs(pairs.mean - obvious[0]) < 1e-9 and abs(pairs.std - obvious[1]) < 1e-9 and pairs.n == 3 and pairs.sign == 1

show.table(["side", "mean ± deviation (n)"], [["SAGE", summary.spread(map(summary.final, sides[0]))], ["vanilla", summary.spread(map(summary.final, sides[1]))],
                                             ["differences", f"{pairs:+.2f}"]], "Made-up numbers")

# %% [markdown]
# Here each side strays several times as much as the differences do. Real pairs may have less in common; then nothing is gained.
# A difference is *decided* when its whole interval lies on one side of zero (`Spread.sign`). One seed never decides.
#
# ## How much could three runs decide?
#
# The paper gives no deviations. So turn the question round: how small must $s$ have been for its differences to be decided? For two
# means of $n$ runs each, with the same $s$ and without pairs, the difference $d$ is decided when $|d| > t_{2n-2}\, s \sqrt{2/n}$.

# %%
least = t.ppf(0.975, 4) * math.sqrt(2 / 3)  # the least difference that three runs a side decide, in deviations
rows = []
for (dataset, model), row in reported.items():
    rival = max((m for m in METHODS if m != "sage"), key=row.get)
    lead = row["sage"] - row[rival]
    rows.append([dataset, model, rival, f"{lead:+.2f}", abs(lead) / least])
assert [row[2] for row in rows] == ["puzzlemix", "comixup", "puzzlemix", "comixup"]
assert [row[3] for row in rows] == ["+0.33", "+0.23", "-0.28", "+0.08"] and max(row[4] for row in rows) < 0.15
show.table(["data", "network", "best rival", "SAGE's lead, reported", "decided if s is below"], rows)

# %% [markdown]
# **What to see.** SAGE's lead over the best rival is decided only if single runs strayed by less than 0.15, 0.10 and 0.04 percent;
# one lead is negative. Seeds alone can move such networks by as much {cite:p}`bouthillier2021`; how much they move ours the tables
# below say, where there are several. One hint lies in the repository of Co-Mixup's authors. The log of a single run there, on
# CIFAR-100 with PreActResNet18, ends with a median of 80.08; Table 1 has 79.68 for that cell, and 79.91 for SAGE.
#
# Against vanilla the table stands on firmer ground: there SAGE leads by more than a percent in every row.

# %%
over = {k: row["sage"] - row["vanilla"] for k, row in reported.items()}
assert min(over.values()) > 1.5
show.table(["data", "network", "SAGE over vanilla, reported", "decided if s is below"], [[*k, f"{d:+.2f}", d / least] for k, d in over.items()])

# %% [markdown]
# ## A plan, and a sweep
#
# Which runs does the table need? A plan says so, in a few lines:

# %%
show.Markdown(f"```yaml\n{(PLANS / 'table_1.yml').read_text()}```")

# %% [markdown]
# Lists are combined, every combination with every seed. A *size* then says how much of it is run: `paper` is appendix B, 300
# epochs and three seeds; `short` is a tenth of the epochs and one seed; `laptop` is a narrow network on 10,000 images of CIFAR-10,
# an evening on two cores.

# %%
sizes = {size: _plan.read(PLANS / "table_1.yml", size)[1] for size in ("paper", "short", "laptop")}
wanted = {(c.parameters["dataset"], c.parameters["model"], c.parameters["method"]) for c in sizes["paper"]}
assert wanted == {(*k, m) for k in reported for m in METHODS} and len(sizes["paper"]) == 3 * len(wanted)
show.table(["size", "cells", "seeds", "epochs", "hours on a T4, as estimated from Table 6"], [
    [size, len(cells), len({c.parameters["seed"] for c in cells}), cells[0].parameters["epochs"], round(sum(map(sweep.hours, cells)), 1)]
    for size, cells in sizes.items()])

# %% [markdown]
# `python -m sagelib.sweep book/plans/table_1.yml --size laptop --root DATA` runs every cell that has no record yet, several at a
# time or on a cluster. It may be stopped in any way: a run goes on from its last checkpoint, and a record is published whole or
# not at all. Here is one cell, on the built-in shapes, from Python; the second call finds nothing left to do:

# %%
said = []
with tempfile.TemporaryDirectory() as folder:
    plan = Path(folder) / "plan.yml"
    plan.write_text("title: One small run\nnotebook: train\ncells: [{dataset: shapes, model: preactresnet18, method: sage}]\n")
    plan.with_name("sizes.yml").write_text("mine: {seeds: [0], parameters: {epochs: 1, width: 4, train_images: 200}}\n")
    where = dict(size="mine", results=f"{folder}/results", out=f"{folder}/out", say=said.append)
    failed = [sweep.run(plan, **where) for _ in range(2)]
    made = records.every(f"{folder}/results")
assert failed == [[], []] and len(made) == 1 and made[0]["method"]["name"] == "sage" and len(made[0]["curve"]) == 1
print(*said, sep="\n")

# %% [markdown]
# ## Table 1
#
# Reported beside measured: mean ± sample deviation over our seeds and, in brackets, their number; the difference to the paper, where
# the recipe is the paper's; and the paired difference to vanilla. There is a table for each recipe, named above it.

# %%
shown = {}
for (dataset, model), row in reported.items():
    for which, found in (summary.measured(every, dataset, model, ROWS) or {"none yet": {}}).items():
        shown[dataset, model, which] = summary.compare(row, found)
        display(show.table(["method", "reported, %", "measured, %", "difference", "to vanilla, same seeds"],
                           shown[dataset, model, which], f"{dataset}, {model}. Recipe of ours: {which}"))

# %% mystnb={"image": {"alt": "Two panels with a row for each of the eight methods: accuracy on CIFAR-10 as the paper reports it, and as measured by our records, a dot for each seed and a bar at their mean."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2), sharey=True, layout="constrained")
for k, m in enumerate(METHODS):
    left.scatter(reported["cifar10", "preactresnet18"][m], k, color=show.COLOURS[m], s=44)
    values = [summary.final(r) for r in ours.get(m, [])]
    right.scatter(values, [k] * len(values), color=show.COLOURS[m], s=44, alpha=0.7)
    if values:
        right.plot([statistics.fmean(values)] * 2, [k - 0.3, k + 0.3], color=show.COLOURS[m], lw=2)
left.set(yticks=range(len(METHODS)), yticklabels=METHODS, xlabel="accuracy, %", title="reported")
right.set(xlabel="accuracy, %", title="measured" + ("" if kind == "paper" else ", shortened recipe"))
left.invert_yaxis()
for axis in (left, right):
    axis.grid(axis="x", alpha=0.3)
plt.show()

# %% [markdown]
# **What to see.** The panels have different scales; where the recipe is shortened, compare the order of the methods and not the
# numbers. Does any method differ from vanilla here, decidedly?

# %%
gaps = {m: summary.paired(ours[m], ours["vanilla"], summary.final) for m in ours if m != "vanilla"}
assert {m for m, gap in gaps.items() if gap.sign} == {"mixup", "cutmix", "manifold_mixup", "sage"}
assert all(gap.mean < 0 for gap in gaps.values() if gap.sign) and {r["parameters"]["lr"] for r in ours["comixup"]} == {0.12}
show.table(["method", "minus vanilla, same seeds", "95 % interval", "decided"], [
    [m, gap, f"{gap.mean - gap.interval:.2f} to {gap.mean + gap.interval:.2f}", "lower" if gap.sign < 0 else "no"] for m, gap in gaps.items()])

# %% [markdown]
# **What to see.** In this recipe Mixup, CutMix, Manifold Mixup and SAGE are lower than vanilla, and no method is higher. In thirty
# epochs on a fifth of the images, methods that make the task harder may not have had the time to pay: a likely reason, and untested.
# Only records of the paper's recipe can confirm or refute its rows.
#
# Each method runs with the settings that the paper's commands give it, so that not all is equal: Co-Mixup learns with a rate of 0.12,
# the others with 0.2. And the rivals are mended, not copied: our SaliencyMix aims its box as was meant, and the solvers of Puzzle Mix
# and Co-Mixup are exact ([Paper and code](appendix_paper_and_code.ipynb)).
#
# ## What the paper says of its table
#
# Section 4.1 draws conclusions from Table 1. Several can be checked by arithmetic on the table itself.

# %%
saliency, plain = ["saliencymix", "puzzlemix", "comixup", "sage"], ["vanilla", "mixup", "cutmix", "manifold_mixup"]
leads = {k: [row[a] - row[b] for a in saliency for b in plain] for k, row in reported.items()}
wins = {k: sum(lead > 0 for lead in each) for k, each in leads.items()}
assert list(wins.values()) == [12, 15, 16, 16] and sum(lead > 1 for each in leads.values() for lead in each) == 30
assert all(row["sage"] > max(row["saliencymix"], row["comixup"]) for row in reported.values())
rows = {k: sorted(METHODS, key=row.get, reverse=True) for k, row in reported.items()}
assert [k for k, order in rows.items() if order[0] != "sage"] == [("cifar100", "wrn16_8")]
assert rows["cifar100", "wrn16_8"][:3] == ["puzzlemix", "sage", "comixup"]
worse = {k: [m for m in METHODS if row[m] < row["vanilla"]] for k, row in reported.items()}
assert worse == {k: ["mixup", "cutmix", "manifold_mixup"] if k[1] == "resnext29_4_24" else [] for k in reported}
show.table(["data", "network", "best", "second", "third", "pairs won by saliency, of 16", "below vanilla"],
           [[*k, *rows[k][:3], wins[k], ", ".join(worse[k])] for k in reported])

# %% [markdown]
# **What to see.** Methods that use saliency, says the text, "substantially outperform other non-saliency-based variants across almost all
# datasets and architectures". In 59 of 64 pairs they are ahead, in 30 of them by more than a point. The exceptions are SaliencyMix on
# CIFAR-10 (behind CutMix and Manifold Mixup) and on CIFAR-100 with PreActResNet18 (behind CutMix), and Co-Mixup on CIFAR-10 (behind
# the same two).
#
# SAGE beats SaliencyMix and Co-Mixup in every row, and Puzzle Mix in three of four. On ResNeXt29 three of the methods without saliency
# come out *below* vanilla, which the text does not mention.
#
# ## The table elsewhere
#
# For a paper or a spreadsheet:

# %%
header, body = ["method", "reported", "measured"], [row[:3] for row in shown["cifar10", "preactresnet18", kind]]
print(summary.as_latex(header, body))
print(summary.as_csv(header, [row for row in body if row[2] != "not run"]))

# %% [markdown]
# ## Exercises
#
# ### Exercise 11.1
#
# Suppose that all eight methods were equally good, and single runs strayed by $s = 0.2$. How far would the best of the eight means
# of three runs lead the second, and the worst, by luck alone?

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
means = (0.2 * torch.randn(draws, 8, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)).mean(2)
ordered = means.sort(1, descending=True).values
lead, reach = float((ordered[:, 0] - ordered[:, 1]).mean()), float((ordered[:, 0] - ordered[:, -1]).mean())
assert 0.06 < lead < 0.072 and 0.31 < reach < 0.35
show.table(["the best of eight equals leads", "by, on average, %"], [["the second", lead], ["the worst", reach]])

# %% [markdown]
# A lead as small as the one over Co-Mixup on ResNeXt29 is about what luck gives; the range of the whole first row is not.
#
# ### Exercise 11.2
#
# How many seeds would each lead of SAGE over its best rival need to be decided, if it is the true one and $s = 0.2$? (With that number
# the chances are still only about even, since a measured lead strays as well.)

# %% tags=["hide-cell"]
def seeds_needed(lead, s):
    return next(n for n in itertools.count(2) if abs(lead) > t.ppf(0.975, 2 * n - 2) * s * math.sqrt(2 / n))


leads = {k: row["sage"] - max(v for m, v in row.items() if m != "sage") for k, row in reported.items()}
needed = {k: seeds_needed(lead, 0.2) for k, lead in leads.items()}
assert min(needed.values()) > 3 and needed["cifar100", "resnext29_4_24"] > 40
show.table(["data", "network", "lead, reported", "seeds of each method"], [[*k, f"{leads[k]:+.2f}", needed[k]] for k in reported])

# %% [markdown]
# ### Exercise 11.3
#
# Write a plan that trains SAGE on CIFAR-100 with three values of `u` on two networks, with five seeds. How many cells are they?

# %% tags=["hide-cell"]
with tempfile.TemporaryDirectory() as folder:
    plan = Path(folder) / "plan.yml"
    plan.write_text("title: How u matters\nnotebook: train\ncells:\n  - {dataset: cifar100, model: [preactresnet18, wrn16_8], method: sage,\n"
                    "     options: [{u: 0.5}, {u: 0.7}, {u: 1.0}]}\nsizes: {paper: {seeds: [0, 1, 2, 3, 4]}}\n")
    cells = _plan.read(plan, "paper")[1]
assert len(cells) == 2 * 3 * 5 and {c.parameters["epochs"] for c in cells} == {300}
show.table(["cell", "parameters"], [[c.name, c.parameters] for c in cells[:3]] + [["…", f"{len(cells)} cells in all"]])
