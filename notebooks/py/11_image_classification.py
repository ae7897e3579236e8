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
# Table 1 holds the paper's main claim {cite:p}`ma2022sage`. It compares eight ways to train on four
# pairs of a data set and a network, and each cell is the mean accuracy of three runs. SAGE is best
# in three of the four rows, mostly by a few tenths of a point.
#
# Where does such a number come from, and how much do a few tenths say? This chapter follows a
# number from one training run to the table. A run leaves a record. The records of several seeds
# give a mean, and two sources of error say how far that mean can be trusted. A rule decides which
# differences count. A plan names the runs that a table needs, and a sweep carries out those that
# are missing. At the end we read the table.

# %% tags=["parameters"]
seed = 0
draws = 20_000  # simulated experiments where an experiment is a few numbers
tables = 400    # simulated tables of eight methods where every test image is simulated
results = ""    # folder of records; empty: the book's own

# %% tags=["setup"]
import itertools
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from scipy.stats import norm, t

from sagelib import show
from sagelib.bench import plans, records, report, statistics, summary, sweep
from sagelib.bench.paper_recipe import learning_rate
from sagelib.bench.quantities import ACCURACY

reported = {(row.pop("dataset"), row.pop("model")): row for row in records.reported(1)}
METHODS = list(reported["cifar10", "preactresnet18"])
ROWS = {method: (method, {}) for method in METHODS}  # no option changed: the paper's settings
NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "preactresnet18": "PreActResNet18",
         "wrn16_8": "WRN16-8", "resnext29_4_24": "ResNeXt29"}
TITLES = {place: f"{NAMES[place[0]]}, {NAMES[place[1]]}" for place in reported}
assert len(reported) == 4 and len(METHODS) == 8

# %% [markdown]
# ## One run, one record
#
# [The train notebook](experiments/train.ipynb) trains one network and writes one JSON file. The
# file holds every parameter, the seed, the whole learning curve, the hardware and the versions. No
# measured number in this book is typed by hand. The first table lists which runs of Table 1 have a
# record; the second shows what one record says about itself.

# %% tags=["records", "nbval-ignore-output"]
all_records = records.every(results or records.RESULTS)
measured = {place: summary.runs_by_row(all_records, *place, ROWS) for place in reported}
recipes = [(place, kind, runs)
           for place, by_kind in measured.items() for kind, runs in by_kind.items()]
most_runs = max(recipes, key=lambda recipe: sum(map(len, recipe[2].values())), default=("", "", {}))
main_place, _, main_runs = most_runs  # the recipe that the next figures show

if main_runs:
    display(show.table(["data, network", "recipe", "methods", "runs", "trained on"], [
        [TITLES[place], plans.recipe_text(next(iter(runs.values()))[0]), len(runs),
         sum(map(len, runs.values())), summary.machines(runs)]
        for place, kind, runs in recipes]))
    example = next(iter(main_runs.values()))[0]
    display(show.table(["part of the record", "what it says"], [
        ["recipe", example["kind"]], ["method", example["method"]["name"]],
        ["seed", example["seed"]], ["training images", example["dataset"]["train"]],
        ["parameters of the network", example["model"]["parameters"]],
        ["epochs in the curve", len(example["curve"])],
        ["seconds per epoch", example["seconds"]["epoch"]],
        ["torch", example["versions"]["torch"]], ["trained on", summary.machines({"": [example]})],
        ["file", records.path(example, "book/results")]]))
else:
    display(show.Markdown("No run of Table 1 has a record yet: **not run**."))

# %% [markdown]
# Look for the recipe first. A record that was trained as the paper's appendix B says is of the kind
# `paper`. Every other kind names each difference: fewer epochs, fewer images, a narrower network,
# another precision. The book's own recipes have names, such as `laptop`; the section on plans
# explains them. Numbers of one recipe compare with each other. They do not compare with the paper's
# numbers, nor with those of another recipe.
#
# The next figure shows the learning curves of the recipe that has the most runs.

# %% tags=["records", "nbval-ignore-output"] mystnb={"image": {"alt": "Learning curves: test accuracy against epoch, a line for each method, drawn from its first seed."}}
def swings(curve):
    """Mean change of the test accuracy from one evaluation to the next, at the end of the first
    learning rate and of the last; None where a curve does not have two such phases."""
    groups = itertools.groupby(curve, key=lambda epoch: epoch["lr"])
    phases = [[epoch["test_accuracy"] for epoch in group if "test_accuracy" in epoch]
              for _, group in groups]
    if len(phases) < 2 or min(len(phases[0]), len(phases[-1])) < 2:
        return None
    return [float(np.abs(np.diff(phase[-6:])).mean()) for phase in (phases[0], phases[-1])]


text = "There is no learning curve to show: **not run**."
if main_runs:
    show.curves({method: rs[0]["curve"] for method, rs in main_runs.items()}, size=(6, 3.3))
    known = [pair for rs in main_runs.values() for r in rs if (pair := swings(r["curve"]))]
    early, late = np.mean(known, axis=0) if known else (None, None)
    recipe = plans.recipe_text(next(iter(main_runs.values()))[0])
    text = f"{TITLES[main_place]}. The recipe is {recipe}. " + (
        f"Just before the learning rate first drops, the test accuracy changes by {early:.2f} "
        "points from one evaluation to the next, on average over the runs. In the last epochs it "
        f"changes by {late:.2f} points." if known else
        "These curves do not have two phases of constant learning rate that could be compared.")
show.Markdown(text)

# %% [markdown]
# The paper's recipe divides the learning rate by ten after a third and after two thirds of the
# epochs. A high learning rate keeps the network moving, so its test accuracy swings. The sentence
# below the figure, which is computed from the records, says by how much.
#
# ## Which accuracy?
#
# A curve holds many accuracies, and the paper does not say which of them Table 1 reports. The
# authors' training script prints the *median of the last ten epochs*. Others report the *final*
# epoch, and some the *best* one. To know the best epoch one has to look at the test set, and a test
# set that helps to choose is no longer a test. How much does the choice bring? Take curves that
# have stopped improving and only swing, with a standard deviation of 0.2 points:

# %%
# NBVAL_IGNORE_OUTPUT
def three_accuracies(curve):
    """Final accuracy, median of the last ten epochs, and the best on the test set."""
    accuracy = [epoch["test_accuracy"] for epoch in curve]
    return accuracy[-1], float(np.median(accuracy[-10:])), max(accuracy)


random = np.random.default_rng(seed)
flat = 95 + 0.2 * random.normal(size=(draws, 30))  # the true accuracy is 95 % in every epoch
curve = [{"epoch": k, "test_accuracy": a, "test_loss": 0.2} for k, a in enumerate(flat[0].tolist())]
library = records.summary(curve)
assert three_accuracies(curve) == (
    library["final"]["accuracy"], library["median_last10"], library["best_on_test"]["accuracy"])
excess = {"final epoch": flat[:, -1].mean() - 95, "best of 30": flat.max(1).mean() - 95,
          "median of the last 10": np.median(flat[:, -10:], axis=1).mean() - 95}
assert abs(excess["final epoch"]) < 0.01 > abs(excess["median of the last 10"])
assert excess["best of 30"] > 0.35
show.table(["reported accuracy", "mean excess over the true accuracy, points"],
           [[name, float(points)] for name, points in excess.items()])

# %% [markdown]
# The final epoch and the median are right on average. The best epoch exceeds the truth by about 0.4
# points. SAGE does not lead the best baseline by as much in any row of Table 1. Our records keep
# the three apart, and our tables show the final accuracy, which involves no choice.
#
# ## Two sources of error
#
# Repeat an experiment and the accuracy comes out differently, for two reasons.
#
# 1. **Another seed** means other initial weights, another order of the images and other random
#    draws of the method, and therefore another network.
# 2. **Another test set** holds other images. The 10,000 test images are only a sample, and a
#    network that is luckier with this sample need not be better.
#
# More seeds reduce the first error. They do not touch the second, because all seeds are evaluated
# on the same images.
#
# ### The test set
#
# A network gets each of $N$ images right or wrong. If it is right with probability $a$, its
# accuracy on the sample has the binomial standard error $e$. At 95 % and $N = 10\,000$ that is 0.22
# points. Two networks see the *same* images, and most images are right for both or wrong for both.
# These cancel in the difference. Let $g_i$ be 1 if only the first network gets image $i$ right,
# $-1$ if only the second does, and 0 otherwise. Then the standard error of the difference needs
# only the standard deviation of these gaps:
#
# ```{math}
# :label: eq-test-error
# e = \sqrt{\frac{a\,(1 - a)}{N}}, \qquad
# e_{\text{paired}} = \sqrt{\frac{1}{N (N - 1)} \sum_i (g_i - \bar g)^2} .
# ```
#
# To see that both formulas hold, we make a large population of images, let two networks classify
# it, and draw a thousand test sets from it. The formulas see a single test set. (The library adds
# one right and one wrong image to the count, so that even an accuracy of 100 % has an error above
# zero.)

# %%
# NBVAL_IGNORE_OUTPUT
def slow_binomial_error(right):
    """Standard error of an accuracy in percent, from a list of 0 and 1, one for each image."""
    p = (sum(right) + 1) / (len(right) + 2)
    return 100 * math.sqrt(p * (1 - p) / len(right))


def slow_paired_error(first, second):
    """Standard error of the difference of two accuracies in percent on the same images."""
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(gaps) / len(gaps)
    squares = 0.0
    for gap in gaps:
        squares += (gap - mean) ** 2
    return 100 * math.sqrt(squares / (len(gaps) - 1) / len(gaps))


hard = random.normal(size=100_000)  # how hard each image of the population is
right = np.stack([hard + 0.5 * random.normal(size=100_000) < 1.6 for _ in range(2)]).astype(int)
test_sets = right[:, random.integers(100_000, size=(1000, 2000))]  # (network, test set, image)
accuracy = 100 * test_sets.mean(2)
a, b = test_sets[:, 0].tolist()
single, apart = slow_binomial_error(a), math.hypot(*map(slow_binomial_error, (a, b)))
assert abs(single - statistics.binomial_error(accuracy[0, 0], 2000)) < 1e-9
truth = [float(accuracy[0].std()), float((accuracy[0] - accuracy[1]).std())]
assert abs(single / truth[0] - 1) < 0.2 and abs(slow_paired_error(a, b) / truth[1] - 1) < 0.2
show.table(["quantity", "from one test set, points", "over 1000 test sets, points"], [
    ["accuracy of the first network", single, truth[0]],
    ["difference, as if the images were different ones", apart, ""],
    ["difference, image by image", slow_paired_error(a, b), truth[1]]])

# %% [markdown]
# **What to see.** Both formulas agree with what a thousand test sets show. Treating the two
# networks as if they saw different images gives an error that is too large. That is the safe side,
# and the only choice where a record does not say which images were right. New records do
# (`final.correct`).
#
# ### The seeds
#
# Let $a_1, \dots, a_n$ be the accuracies of $n$ seeds. Their mean $\bar a$ estimates what the
# method gives on this test set. The *sample standard deviation* $s$ estimates how much a single run
# differs from it. The *interval* contains the true mean in 95 of 100 such experiments:
#
# ```{math}
# :label: eq-spread
# \begin{gathered}
# \bar a = \frac1n \sum_k a_k, \qquad s = \sqrt{\frac{1}{n-1} \sum_k (a_k - \bar a)^2} \\[0.4em]
# \bar a \pm t_{n-1} \, \frac{s}{\sqrt n}
# \end{gathered}
# ```
#
# $t_{n-1}$ is the 97.5 % quantile of Student's distribution with $n - 1$ degrees of freedom. It
# replaces the familiar 1.96, because $s$ is itself an estimate, and a poor one from a few runs: the
# factor is 12.7 for two seeds and 4.3 for three.

# %%
def slow_spread(values):
    """Mean, sample standard deviation, and half-width of the 95 % interval."""
    n, total, squares = len(values), 0.0, 0.0
    for value in values:
        total += value
    for value in values:
        squares += (value - total / n) ** 2
    s = math.sqrt(squares / (n - 1))
    return total / n, s, t.ppf(0.975, n - 1) * s / math.sqrt(n)


accuracies = [96.8, 97.1, 96.9]  # made up
spread = summary.spread(accuracies)
np.testing.assert_allclose((spread.mean, spread.std, spread.interval), slow_spread(accuracies))
low, high = spread.mean - spread.interval, spread.mean + spread.interval
show.table(["seeds", "mean ± standard deviation (n)", "95 % interval"],
           [[accuracies, spread, f"{low:.2f} to {high:.2f}"]])

# %% [markdown]
# ### Two methods: differences seed by seed
#
# Two runs with the same seed start from the same weights and see the images in the same order. What
# they have in common cancels in the difference. So we take the differences seed by seed and then
# their mean $\bar d$ and standard deviation $s$:
#
# ```{math}
# :label: eq-paired
# d_k = a_k^{\text{SAGE}} - a_k^{\text{vanilla}}, \qquad k = 1, \dots, n .
# ```
#
# If the seeds of two methods have little in common, pairing brings nothing. It then costs a little,
# since Student's distribution has $n - 1$ degrees of freedom instead of $2n - 2$.
#
# ### Both errors together
#
# Each error gives a half-width. That of the seeds uses Student's quantile. That of the test set
# uses the normal one, 1.96, since its error is known from thousands of images. The two errors are
# independent, so the squares add up:
#
# ```{math}
# :label: eq-both-errors
# \bar d \pm h, \qquad
# h^2 = \Big(t_{n-1} \frac{s}{\sqrt n}\Big)^2 + \big(1.96 \; e_{\text{paired}}\big)^2 .
# ```
#
# For several seeds, $g_i$ in {eq}`eq-test-error` is the mean over the seeds. Here are two made-up
# methods with a few seeds each, first with loops, then with the library:

# %%
def slow_difference(ours, theirs):
    """Mean, s, seeds, error of the test set and half-width, from two dicts: seed -> 0 or 1 for each
    image."""
    seeds = [k for k in ours if k in theirs]
    n, images = len(seeds), len(ours[seeds[0]])
    mean, s, _ = slow_spread([100 * (sum(ours[k]) - sum(theirs[k])) / images for k in seeds])
    gaps = []
    for image in range(images):
        gaps.append(sum(ours[k][image] - theirs[k][image] for k in seeds) / n)
    error = slow_paired_error(gaps, [0] * images)
    by_seeds = t.ppf(0.975, n - 1) * s / math.sqrt(n)
    return mean, s, n, error, math.sqrt(by_seeds**2 + (1.96 * error) ** 2)


def made_up(bias, seeds):
    """Seed -> which of 2,000 images a network gets right; a larger bias makes a better method."""
    return {k: (hard[:2000] + 0.5 * random.normal(size=2000) < bias).astype(int) for k in seeds}


ours, theirs = made_up(1.9, (0, 1, 2, 3)), made_up(1.6, (2, 0, 1))  # seed 3 has no partner
sides = [[{"seed": k, "right": images} for k, images in side.items()] for side in (ours, theirs)]
quantity = statistics.Quantity(lambda record: 100 * record["right"].mean(), error=None,
                               correct=lambda record: record["right"])
gap = statistics.difference(*sides, quantity)
obvious = slow_difference(ours, theirs)
np.testing.assert_allclose((gap.mean, gap.std, gap.n, gap.test_error, gap.interval), obvious, 1e-4)
display(show.source(statistics.difference, statistics.Spread, statistics.Difference))
show.table(["mean difference", "s", "seeds", "error of the test set", "half-width"], [[*obvious]])

# %% [markdown]
# At another level than 5 % both quantiles change. The *p-value* is the level at which the interval
# just reaches zero, and the library finds it by bisection. (Textbooks often combine two errors into
# one standard error and take degrees of freedom by a formula of Welch and Satterthwaite. With three
# seeds that fails: by chance $s$ is sometimes far too small, and the formula then trusts it most.)
#
# ### Many comparisons at once
#
# A table that compares seven methods with vanilla asks seven questions. If each of them is allowed
# a false answer in 5 % of cases, and the answers are independent, at least one is false in
# $1 - 0.95^7 = 30\,\%$. *Holm's procedure* keeps the chance for the whole family at 5 %: sort the
# $m$ p-values, compare the smallest with $0.05/m$, the next with $0.05/(m-1)$, and so on, and stop
# at the first that is too large.

# %%
def slow_holm(p_values, level=0.05):
    """Which p-values are decided, 0 or 1 each."""
    decided = [0] * len(p_values)
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda k: p_values[k])
        if p_values[smallest] >= level / len(left):
            break
        decided[smallest] = 1
        left.remove(smallest)
    return decided


for _ in range(500):
    p_values = (random.random(7) ** 4).tolist()  # small ones are frequent
    assert statistics.holm(p_values) == slow_holm(p_values)
p_values = [0.0001, 0.02, 0.009, 0.4, 0.008, 0.011, 0.7]
assert slow_holm(p_values) == [1, 0, 1, 0, 1, 1, 0] and sum(p < 0.05 for p in p_values) == 5
display(show.source(statistics.holm))
show.table(["p-value", "compared with", "decided"], [
    [f"{p_values[k]:g}", f"{0.05 / (7 - rank):.4f}", "yes" if slow_holm(p_values)[k] else "no"]
    for rank, k in enumerate(np.argsort(p_values).tolist())])

# %% [markdown]
# One rule now serves the whole book. A difference is **decided** if
#
# - both sides have at least three seeds in common, and their differences are not all the same;
# - Holm's procedure decides it within its family, at 5 % for the whole family;
# - the family is named beside the table, since a larger family demands more of each member.
#
# ## What would break it
#
# Two mistakes are common: dividing by $n$ instead of $n - 1$, and using 1.96 whatever $n$ is. Draw
# many experiments of three runs each from a known distribution, and count how often the interval
# contains the true mean:

# %%
# NBVAL_IGNORE_OUTPUT
runs_of_three = random.normal(size=(draws, 3))  # the true mean is 0
middle, s = runs_of_three.mean(1), runs_of_three.std(1, ddof=1)
half_widths = {"n - 1 and Student's t": t.ppf(0.975, 2) * s, "n - 1 and 1.96": 1.96 * s,
               "n and Student's t": t.ppf(0.975, 2) * s * (2 / 3) ** 0.5,
               "n and 1.96": 1.96 * s * (2 / 3) ** 0.5}
covers = {name: 100 * float((np.abs(middle) <= half / 3**0.5).mean())
          for name, half in half_widths.items()}
assert abs(covers["n - 1 and Student's t"] - 95) < 1
assert covers["n - 1 and 1.96"] < 84 and covers["n and 1.96"] < 77
show.table(["interval from three runs", "contains the true mean, %"], [*covers.items()])

# %% [markdown]
# **What to see.** The wrong intervals promise 95 %. The worst of them keeps about 75 %, so one
# experiment in four would report an effect where there is none.
#
# A third mistake needs no wrong formula. Suppose that one method reaches 77.00 % and 77.51 % with
# two seeds, and another 72.06 % and 72.57 % with the same seeds. Both differences are 4.94 points:

# %%
pairs = np.array([77.00, 77.51]) - np.array([72.06, 72.57])
s = float(pairs.std(ddof=1))
p = 2 * float(t.sf(pairs.mean() / (s / math.sqrt(2)), 1))
by_our_rule = statistics.Difference(float(pairs.mean()), s, 2, test_error=0.6).p
assert s < 1e-13 and p < 1e-14 and by_our_rule == 1
five_alike = statistics.Difference(4.94, 0.0, 5, test_error=0.6)
assert not five_alike.can_decide and five_alike.p == 1
show.table(["differences", "s", "p by the t-test", "p by our rule"],
           [["4.94 and 4.94", f"{s:.0e}", f"{p:.0e}", f"{by_our_rule:g}"]])

# %% [markdown]
# **What to see.** The t-test is certain, because two numbers with two decimals happened to agree
# and $s$ is nothing but a rounding error. The accuracy on 10,000 images has steps of 0.01 points,
# so this happens. In the simulation below, two differences are equal in about one case in a
# hundred. A standard deviation of zero says that these runs were alike. It says nothing about the
# next one.
#
# How often does each rule err? We simulate whole tables in which **all eight methods are equally
# good**. Every image has a difficulty, every method has its own opinion of each image, and every
# seed adds noise. Any difference that is called decided is then a false decision. We compare four
# rules, for 2, 3 and 5 seeds:

# %%
# NBVAL_IGNORE_OUTPUT
def simulated_table(images=10_000, methods=8, seeds=5):
    """Which images equally good methods get right, 0 or 1, (methods, seeds, images)."""
    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)
    opinion, noise = normal(methods, 1, images), normal(methods, seeds, images)
    effort = normal(images) + 0.3 * opinion + 0.3 * noise + 0.01 * normal(methods, seeds, 1)
    return (effort < 1.75).astype(np.int8)


counts = {n: [] for n in (2, 3, 5)}
for _ in range(tables):
    right = simulated_table()
    for n, rows in counts.items():
        gaps = right[1:, :n] - right[:1, :n]  # (7, n, images): seven methods against the first
        d = 100 * gaps.mean(2)
        mean, s, e = d.mean(1), d.std(1, ddof=1), gaps.mean(1).std(1, ddof=1)  # e: 100 % / sqrt(N)
        alone, holm = (t.isf(level / 2, n - 1) * s / n**0.5 for level in (0.05, 0.05 / 7))
        both = np.hypot(holm, norm.isf(0.05 / 14) * e)
        false = [np.abs(mean) > half for half in (alone, holm, both)]
        any_false = [each.any() for each in false]
        rows.append([(s == 0).mean(), false[0].mean(), *any_false, both.mean()])
        if n > 2 and len(rows) < 4:  # the library decides the same
            family = {k: statistics.Difference(mean[k], s[k], n, e[k]) for k in range(7)}
            assert any(statistics.Family("", family).signs.values()) == any_false[2]
rates = {n: 100 * np.mean(rows, axis=0) for n, rows in counts.items()}
assert all(row[2] > 25 and row[4] < 5 for row in rates.values()) and rates[5][3] > 10
header = ["seeds", "s = 0", "one t-test", "any of seven", "with Holm", "both errors", "it needs"]
show.table(header, [[n, *row[:4], *([row[4], row[5] / 100] if n > 2 else ["", "no decision"])]
                    for n, row in rates.items()])

# %% [markdown]
# **What to see.** All numbers but the last column are percentages. The second column shows how
# often two or more differences are exactly alike, so that $s = 0$. *One t-test* is the share of
# single comparisons that the seeds alone call decided. The next three columns count the tables with
# at least one false decision.
#
# - Seven t-tests without correction err in a third of all tables or more.
# - Holm's procedure alone does not repair that, and *more seeds make it worse*. They measure ever
#   more precisely how the methods differ on these 10,000 images, and the test takes it for how they
#   differ in general.
# - With both errors the rate is below 5 %. It is far below, because the gaps image by image contain
#   a part of the seeds' noise, which our rule therefore counts twice.
#
# This caution has a price: the last column shows how large the largest difference must be before it
# is decided. The remedy is more seeds, not a weaker rule.
#
# ## How much could three runs decide?
#
# The paper gives no standard deviations. So we ask how small $s$ must have been for its differences
# to be decided, each on its own. For two means of $n$ runs each, with the same $s$ and without
# pairs, a difference $d$ is decided by the seeds if $|d| > t_{2n-2}\, s \sqrt{2/n}$. The last two
# columns add the error of the test set. The paper does not say which images were right, so the
# error is that of different images.

# %%
def largest_s(lead, error=0.0):
    """Largest s at which two means of three runs decide a lead; None if the test set hides it."""
    rest = lead**2 - (1.96 * error) ** 2
    return math.sqrt(rest) / (t.ppf(0.975, 4) * math.sqrt(2 / 3)) if rest > 0 else None


rows = []
for place, row in reported.items():
    best = max((m for m in METHODS if m != "sage"), key=row.get)
    for other in (best, "vanilla"):
        lead = row["sage"] - row[other]
        error = math.hypot(*(statistics.binomial_error(row[m], 10_000) for m in ("sage", other)))
        rows.append([TITLES[place], other, lead, largest_s(lead), error, largest_s(lead, error)])
over_best, over_vanilla = rows[::2], rows[1::2]
assert [row[1] for row in over_best] == ["puzzlemix", "comixup", "puzzlemix", "comixup"]
assert [round(row[2], 2) for row in over_best] == [0.33, 0.23, -0.28, 0.08]
assert max(row[3] for row in over_best) < 0.15 and not any(row[5] for row in over_best)
assert min(row[2] for row in over_vanilla) > 1.5 and min(row[5] for row in over_vanilla) > 0.45
show.table(["data, network", "SAGE minus", "lead, reported", "decided if s is below",
            "error of the test set", "then if s is below"],
           [[*row[:2], f"{row[2]:+.2f}", *row[3:5], row[5] or "never"]
            for row in over_best + over_vanilla])

# %% [markdown]
# **What to see.** SAGE leads the best baseline in three rows. Judged by the seeds alone, these
# leads are decided only if single runs have a standard deviation below 0.15, 0.10 and 0.04 points.
# In the third row, WRN16-8, it is Puzzle Mix that leads. Seeds can move such networks by as much
# {cite:p}`bouthillier2021`. And each of these leads is smaller than 1.96 times the error of the
# test set, so without the answers image by image no number of seeds could decide it. The repository
# of Co-Mixup's authors gives a hint of the size: it holds the log of one run on CIFAR-100 with
# PreActResNet18, which ends with a median of 80.08. Table 1 has 79.68 for that cell, and 79.91 for
# SAGE.
#
# Against vanilla the table has firmer ground. There SAGE leads by more than 1.5 points in every
# row, and the leads are decided at any plausible $s$.
#
# ## A plan, and a sweep
#
# Which runs does the table need? A plan says so in a few lines. The sweep combines the lists: every
# combination, with every seed. A *size* says how much of the plan to run. `paper` is appendix B,
# with 300 epochs and three seeds. `short` is a tenth of the epochs and one seed, and `medium` a
# third of the epochs in half precision. `laptop` is a narrow network on 2,000 images of CIFAR-10,
# which it comes to fit, as the paper's network does with all 50,000. `underfit` has 10,000 images
# and stops long before that; [chapter 6](06_training.ipynb) shows why this matters. `expect` names
# the numbers that the runs should come to. The file opens with a comment, not shown here, that has
# these numbers, the commands and the hours on several machines. The caption says what the estimate
# of hours rests on.

# %% tags=["records", "nbval-ignore-output"]
plan = plans.PLANS / "table_1.yml"
sizes = {size: plans.read(plan, size)[1] for size in ("paper", "short", "medium", "laptop")}
wanted = {tuple(c.parameters[k] for k in ("dataset", "model", "method")) for c in sizes["paper"]}
assert wanted == {(*place, m) for place in reported for m in METHODS}
assert len(sizes["paper"]) == 3 * len(wanted)
rates = {m: learning_rate("cifar10", m) for m in METHODS}  # the paper's appendix B
assert rates.pop("comixup") == 0.12 and set(rates.values()) == {0.2}
lines = [line for line in plan.read_text().splitlines() if not line.startswith("#")]
display(show.Markdown("\n".join(["```yaml", *lines, "```"])))
basis = ("Hours on a Tesla T4, estimated from the operations that a run needs and the numbers that "
         "it writes, both counted, at the pace of the vanilla runs of the paper's Table 6. "
         + sweep.estimate.NOT_INCLUDED)
show.table(["size", "runs", "seeds", "epochs", "hours, estimated"], [
    [size, len(cells), len({c.parameters["seed"] for c in cells}), cells[0].parameters["epochs"],
     round(sum(map(sweep.hours, cells)), 1)] for size, cells in sizes.items()], basis)

# %% [markdown]
# `python -m sagelib.bench.sweep book/plans/table_1.yml --size laptop --root DATA` carries out every
# run that has no record yet, several at a time or on a cluster. You may stop it in any way. A run
# continues from its last checkpoint, and a record is published whole or not at all. Here is one
# run, on the built-in shapes, from Python. The second call finds nothing left to do:

# %%
said = []
with tempfile.TemporaryDirectory() as folder:
    plan = Path(folder) / "plan.yml"
    plan.write_text("title: One small run\nnotebook: train\n"
                    "cells: [{dataset: shapes, model: preactresnet18, method: sage}]\n")
    plan.with_name("sizes.yml").write_text(
        "mine: {seeds: [0], parameters: {epochs: 1, width: 4, train_images: 200}}\n")
    where = dict(size="mine", results=f"{folder}/results", out=f"{folder}/out", say=said.append)
    failed = [sweep.run(plan, **where) for _ in range(2)]
    written = records.every(f"{folder}/results")
assert failed == [[], []] and len(written) == 1
assert written[0]["method"]["name"] == "sage" and len(written[0]["curve"]) == 1
print(*said, sep="\n")

# %% [markdown]
# ## Table 1
#
# The tables show, for each method, the reported accuracy, our mean ± sample standard deviation with
# the number of seeds in brackets, and the difference between the two, where the recipe is the
# paper's. Then follows the difference to vanilla over the seeds that both have, with its two
# standard errors, and whether it is decided. The last column is the method's rank. All pairs of
# methods are compared, as one family, and a method's rank is one more than the number of methods
# that are decided to be better. Methods that are not told apart share a rank. There is a table for
# each recipe that has been run, and the caption names the recipe.

# %% tags=["records", "nbval-ignore-output"]
header = ["method", "reported, %", "measured, %", "difference", "minus vanilla, same seeds",
          "error of the seeds", "error of the test set", "decided", "rank"]
for place, numbers in reported.items():
    for runs in (measured[place] or {"": {}}).values():
        family = summary.against(runs, "vanilla", "methods", TITLES[place])
        ranking = statistics.rank(runs, ACCURACY, TITLES[place])
        ranks = ranking.ranks if ranking.decides else {}
        rows = [[*row, *summary.evidence(family, row[0]), ranks.get(row[0], "")]
                for row in summary.compare(numbers, runs)]
        caption = "Not run."
        if runs:
            recipe = plans.recipe_text(next(iter(runs.values()))[0])
            caption = f"The recipe is {recipe}. Trained on {summary.machines(runs)}."
        display(show.table(header, rows, f"{TITLES[place]}. {caption}"))
        if runs:
            sentences = summary.in_words(family, runs, "vanilla")
            display(show.Markdown(f"{sentences} {ranking.sentence}"))

# %% tags=["records", "nbval-ignore-output"] mystnb={"image": {"alt": "Panels with a row for each of the eight methods: accuracy on CIFAR-10 with PreActResNet18 as the paper reports it, and as measured with each recipe of at least three methods, a dot for each seed and a bar at their mean."}}
here = ("cifar10", "preactresnet18")
panels = {kind: runs for kind, runs in measured[here].items() if len(runs) > 2}
_, axes = plt.subplots(1, 1 + len(panels), figsize=(3.8 + 3.8 * len(panels), 3.2), sharey=True,
                       layout="constrained", squeeze=False)
first, *others = axes[0]
colours = [show.COLOURS[m] for m in METHODS]
first.scatter([reported[here][m] for m in METHODS], range(8), color=colours, s=44)
first.set(yticks=range(8), yticklabels=METHODS, xlabel="accuracy, %", title="reported")
text = ""
for axis, (kind, runs) in zip(others, panels.items(), strict=True):
    means = {m: np.mean([summary.final(r) for r in rs]) for m, rs in runs.items()}
    for m, rs in runs.items():
        y = METHODS.index(m)
        axis.scatter([summary.final(r) for r in rs], [y] * len(rs), color=colours[y], alpha=0.7)
        axis.plot([means[m]] * 2, [y - 0.3, y + 0.3], color=colours[y], lw=2)
    recipe = f"recipe {plans.recipe_name(next(iter(runs.values()))[0])}"
    axis.set(xlabel="accuracy, %", title=f"measured, {recipe}")
    order = sorted(means, key=means.get, reverse=True)
    text += f"In the panel “measured, {recipe}” the order of the means is {', '.join(order)}. "
    if kind.startswith("shortened") and "vanilla" in order[:len(order) // 2]:
        text += ("Vanilla is in the upper half. Mixing makes the task harder, and a training that "
                 "ends before the network fits its images leaves it no time to pay off "
                 "([chapter 6](06_training.ipynb)). ")
first.invert_yaxis()
plt.show()
show.Markdown(text or "No recipe has been run with three methods or more.")

# %% [markdown]
# The panels have different scales. Compare the order of the methods and not the numbers, unless the
# recipe is the paper's. An order of means is not a decision either: the sentences below each table
# say which differences are decided.
#
# Every method runs with the settings of the paper's commands, and these are not equal in all
# respects: on CIFAR-10 Co-Mixup has a learning rate of 0.12 and the others have 0.2. We
# reimplemented the baselines and fixed the bugs that we found. Our SaliencyMix places its box where
# its authors meant to, and our solvers for Puzzle Mix and Co-Mixup are exact
# ([Paper and code](appendix_paper_and_code.ipynb)).
#
# ## What the paper says about its table
#
# Section 4.1 draws conclusions from Table 1. Arithmetic on the table itself can check several of
# them.

# %%
saliency = ["saliencymix", "puzzlemix", "comixup", "sage"]
plain = ["vanilla", "mixup", "cutmix", "manifold_mixup"]
leads = {place: [row[a] - row[b] for a in saliency for b in plain]
         for place, row in reported.items()}
ahead = {place: sum(lead > 0 for lead in row) for place, row in leads.items()}
assert list(ahead.values()) == [12, 15, 16, 16]
assert sum(lead > 1 for row in leads.values() for lead in row) == 30
assert all(row["sage"] > max(row["saliencymix"], row["comixup"]) for row in reported.values())
ranked = {place: sorted(METHODS, key=row.get, reverse=True) for place, row in reported.items()}
assert [place for place, order in ranked.items() if order[0] != "sage"] == [("cifar100", "wrn16_8")]
assert ranked["cifar100", "wrn16_8"][:3] == ["puzzlemix", "sage", "comixup"]
worse = {place: [m for m in METHODS if row[m] < row["vanilla"]] for place, row in reported.items()}
assert worse.pop(("cifar100", "resnext29_4_24")) == ["mixup", "cutmix", "manifold_mixup"]
assert not any(worse.values())
show.table(["data, network", "best", "second", "third", "saliency ahead, of 16"],
           [[TITLES[place], *ranked[place][:3], ahead[place]] for place in reported])

# %% [markdown]
# **What to see.** Methods that use saliency, says the text, "substantially outperform other
# non-saliency-based variants across almost all datasets and architectures". Each of the four
# methods with saliency can be compared with each of the four without. In 59 of these 64 comparisons
# saliency is ahead, in 30 of them by more than a point. There are five exceptions. On CIFAR-10,
# SaliencyMix and Co-Mixup are behind CutMix and Manifold Mixup. On CIFAR-100 with PreActResNet18,
# SaliencyMix is behind CutMix.
#
# SAGE beats SaliencyMix and Co-Mixup in every row, and Puzzle Mix in three of the four. On
# ResNeXt29 three of the methods without saliency are *below* vanilla, which the text does not
# mention. The [scorecard](scorecard.ipynb) checks each of these claims in the printed table and in
# our records.
#
# ## Saliency or schedule?
#
# SAGE leads the best baseline of Table 1 by a few tenths of a point. A learning-rate schedule may
# do more than that. The authors of R-Mix {cite:p}`luu2022rmix` publish a network for CIFAR-100,
# trained with CutMix, that reaches 81.62 %. Table 1 has 78.96 % for CutMix and 79.91 % for SAGE.
# Their program uses PyTorch's `OneCycleLR` where the paper has two steps. But that is one run of
# other code. To tell the method from the schedule one has to change one of them at a time.
#
# The plan `book/plans/schedule.yml` does so: vanilla, CutMix, Puzzle Mix and SAGE, each under the
# paper's steps and under one cycle, with the same largest learning rate and everything else equal.
# If the schedule brought every method the same, SAGE's lead would be the same in the last two
# columns.
#
# After the schedules come the learning rates of Co-Mixup. The paper trains it on CIFAR-10 with
# 0.12, because 0.2, the rate of everything else, "results in divergence at the beginning of the
# training" (appendix B). The plan `book/plans/comixup_rate.yml` trains with both. A network that
# diverged answers at chance, 10 %: the [scorecard](scorecard.ipynb) asks whether 0.12 ends at least
# 50 points above 0.2. Divergence can also stop a run, and then it leaves no record: a loss that is
# not finite is an error. The sweep counts the run as failed, and `error.txt` in the folder of the
# attempt has the epoch and the step. So where 0.12 was run and 0.2 was not, look there.

# %% tags=["records", "nbval-ignore-output"]
planned = report.of_plan(plans.PLANS / "schedule.yml", all_records)
planned = {place: runs for place, runs in planned.items()
           if {label.split(", ")[1] for label in runs} == {"steps", "one_cycle"}}
for (size, data), runs in planned.items():
    steps, cycle = ({label.split(", ")[0]: rs for label, rs in runs.items() if label.endswith(end)}
                    for end in ("steps", "one_cycle"))
    gaps = {m: statistics.difference(rs, steps.get(m, []), ACCURACY) for m, rs in cycle.items()}
    gaps = {m: gap for m, gap in gaps.items() if gap}
    family = statistics.Family(f"one cycle against steps for {len(gaps)} methods", gaps)
    body = []
    for m in dict.fromkeys([*steps, *cycle]):
        means = [summary.accuracy(by.get(m)) for by in (steps, cycle)]
        behind = [statistics.difference(by["sage"], by[m], ACCURACY)
                  if m != "sage" and {m, "sage"} <= by.keys() else "" for by in (steps, cycle)]
        body.append([m, *means, gaps.get(m, ""), *summary.evidence(family, m), *behind])
    display(show.table(["method", "steps, %", "one cycle, %", "one cycle minus steps",
                        "error of the seeds", "error of the test set", "one cycle is",
                        "SAGE minus this, steps", "SAGE minus this, one cycle"], body,
                       f"{NAMES[data]}, PreActResNet18. The recipe is {size}, but for the "
                       f"schedule. {family.rule}"), show.Markdown(family.sentence))
if not planned:
    display(show.Markdown("No recipe has been run with two schedules: **not run**."))
at, body = ("comixup, lr 0.12", "comixup, lr 0.2"), []
for (size, data), runs in report.of_plan(plans.PLANS / "comixup_rate.yml", all_records).items():
    if data in NAMES:
        both = [runs.get(rate, []) for rate in at]
        means = [summary.accuracy(rs) for rs in both]
        body.append([size, *means, statistics.difference(*both, ACCURACY) or ""])
display(show.table(["recipe", "0.12, %", "0.2, %", "0.12 minus 0.2"], body, "Co-Mixup on CIFAR-10")
        if body else show.Markdown("Co-Mixup, with 0.12 or 0.2: **not run**."))

# %% [markdown]
# ## The table elsewhere
#
# For a paper or a spreadsheet, a table can be had as LaTeX or CSV. This is the first recipe of
# CIFAR-10 above:

# %% tags=["records", "nbval-ignore-output"]
columns = ["method", "reported", "measured"]
body = [row[:3] for row in summary.compare(reported[here], next(iter(measured[here].values()), {}))]
print(summary.as_latex(columns, body))
print(summary.as_csv(columns, [row for row in body if row[2] != "not run"]))

# %% [markdown]
# ## Exercises
#
# ### Exercise 11.1
#
# Suppose that all eight methods are equally good and that single runs have a standard deviation of
# $s = 0.2$. Take the means of three runs. How far does the best of the eight lead the second, and
# the worst, by luck alone? What would happen to both leads if the table compared twenty methods,
# and why? (Hint: draw the means many times and sort them.)

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
def lucky_leads(methods, s=0.2, seeds=3):
    """Mean lead of the best of equal methods over the second and over the worst."""
    means = np.sort(s * random.normal(size=(draws, methods, seeds)).mean(2), axis=1)
    best = means[:, -1]
    return float((best - means[:, -2]).mean()), float((best - means[:, 0]).mean())


over_second, over_worst = lucky_leads(8)
assert 0.06 < over_second < 0.072 and 0.31 < over_worst < 0.35 < lucky_leads(20)[1]
show.table(["methods", "lead over the second, points", "lead over the worst, points"],
           [[methods, *lucky_leads(methods)] for methods in (8, 20)])

# %% [markdown]
# The lead over the worst grows with the number of methods, because the best of many is the luckiest
# of many. The lead over the second shrinks a little instead, since twenty lucky values lie closer
# together at the top. SAGE's lead of 0.08 over Co-Mixup on ResNeXt29 is about what luck gives. The
# range of the first row of Table 1, 1.88 points, is not.
#
# ### Exercise 11.2
#
# How many seeds would each lead of SAGE over its best baseline need to be decided, on its own and
# without pairs, if it is the true lead and $s = 0.2$? Ask first for the seeds alone, then with an
# error of the test set of 0.1 points, as an evaluation image by image may give it. Why can no
# number of seeds decide the lead on ResNeXt29 in the second case? (Hint: what happens to the
# half-width of {eq}`eq-both-errors` as $n$ grows?)

# %% tags=["hide-cell"]
def seeds_needed(lead, error, s=0.2):
    """The least n at which the half-width of two means of n runs is below the lead."""
    if abs(lead) <= 1.96 * error:
        return "no number"
    return next(n for n in itertools.count(2) if abs(lead) > math.hypot(
        t.ppf(0.975, 2 * n - 2) * s * math.sqrt(2 / n), 1.96 * error))


needed = {row[0]: [seeds_needed(row[2], error) for error in (0, 0.1)] for row in over_best}
assert min(by_seeds for by_seeds, _ in needed.values()) > 3
assert needed["CIFAR-100, ResNeXt29"][1] == "no number"
show.table(["data, network", "lead, reported", "seeds, without the test set", "seeds, with it"],
           [[row[0], f"{row[2]:+.2f}", *needed[row[0]]] for row in over_best])

# %% [markdown]
# As $n$ grows, the half-width falls to $1.96 \, e$ and not to zero. A lead below that is hidden by
# the choice of the test images, and only a larger test set can reveal it. (Even with the number of
# seeds in the table the chance of a decision is only about one half, since a measured lead differs
# from the true one.)
#
# ### Exercise 11.3
#
# This exercise is open. Think of a question about SAGE that an experiment could decide, and write
# the plan. How many runs does it need, which family do the comparisons form, and how large must a
# difference be? (Hint: start from the plan above; `options` changes a method.) One answer asks
# whether $u$ matters on CIFAR-100, for two networks:

# %% tags=["hide-cell"]
with tempfile.TemporaryDirectory() as folder:
    plan = Path(folder) / "plan.yml"
    plan.write_text("title: How u matters\nnotebook: train\ncells:\n"
                    "  - {dataset: cifar100, model: [preactresnet18, wrn16_8], method: sage,\n"
                    "     options: [{u: 0.5}, {u: 0.7}, {u: 1.0}]}\n"
                    "sizes: {paper: {seeds: [0, 1, 2, 3, 4]}}\n")
    cells = plans.read(plan, "paper")[1]
assert len(cells) == 2 * 3 * 5 and {c.parameters["epochs"] for c in cells} == {300}
expected = statistics.Difference(0.0, 0.2 * math.sqrt(2), 5, test_error=0.15)  # s = 0.2 a side
least = expected.half_width(0.05 / 4)
assert 0.5 < least < 1
show.table(["run", "parameters"],
           [[c.name, c.parameters] for c in cells[:3]] + [["…", f"{len(cells)} runs in all"]],
           f"Two values of u against the third, for two networks, make a family of four. "
           f"The largest difference must be about {least:.1f} points to be decided.")
