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
# # Ablations
#
# Which part of a method does the work? An *ablation* removes one part, trains again, and measures
# what is lost. The paper does this for the two parts that make SAGE new, for the size of the
# search, for the reuse of the gradient, and for the upper bound of $\lambda$ (its Tables 3 and 7)
# {cite:p}`ma2022sage`.
#
# Ablations are easy to over-interpret, for three reasons. Removing a part means replacing it with
# something. The other hyperparameters stay tuned for the full method. And removing one part at a
# time cannot show that two parts do the same work. This chapter looks at each reason before it
# looks at a table.

# %% tags=["parameters"]
dataset = "shapes"  # or cifar10, cifar100: images of 32 x 32
root = None         # where the data set is; the shapes are built in
seed = 0
train_images = 1000
epochs = 10
batches = 100   # how many batches are mixed where an average is taken
seed_std = 0.2  # assumed standard deviation between seeds, in points, where the paper gives none
results = ""    # folder of records; empty: the book's own

# %% tags=["setup"]
import itertools
import math
from copy import deepcopy

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from scipy import stats

from sagelib import catalog, methods, show, teaching
from sagelib.bench import plans, records, report, scorecard, statistics, summary
from sagelib.bench.quantities import ACCURACY
from sagelib.bench.statistics import rank
from sagelib.losses import one_hot
from sagelib.methods import mixup, sage, sage_controls, saliencymix
from sagelib.rearrange import offsets, shift, total_saliency
from sagelib.saliency import smooth

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
TABLES = {number: records.reported(number) for number in (3, 7)}
reported = {(row["part"], row["setting"]): row for table in TABLES.values() for row in table}
tuned = {data: catalog.settings(methods, "sage", "paper", data, "preactresnet18") for data in DATA}
CELLS = scorecard.cells(TABLES)
READINGS = ["whole", "rounded", "box", "uniform"]  # of "without saliency-guided mixup"
VERSIONS = {label: row.get("options", {})
            for (label, data), row in plans.table_rows(plans.PLANS / "readings.yml").items()
            if data == "cifar10"}

# %% [markdown]
# A small network gives the saliency maps. We train it briefly on synthetic shapes and compute the
# maps in training mode, as a step of SAGE does. The batch has 100 images, as in the authors'
# commands. The shapes show what a version does to an image. They are no evidence about accuracy on
# photographs. For the eye there is a second network, trained to recognise six
# [photographs](02_saliency.ipynb).

# %%
train, test = teaching.small_sets(dataset, root, train_images)
as_told = dataset == "shapes"  # what the text says of a batch it says of shapes
net = teaching.short_training(train, epochs, seed)
x, y = test.normalised()[:100], one_hot(test.labels[:100], len(train.classes))
maps = teaching.saliency_maps(net, x, y)
s = smooth(maps)
all_shifts, no_shift = offsets(32, 32), torch.zeros(1, 2, dtype=torch.long)


def mixed_by(version, batch, partner, lam, tau):
    """The library's mix of a batch x, y, s by a version, which is a row of the plan."""
    step = sage_controls.SageControls(**VERSIONS[version])
    if step.guided:
        return sage_controls.mix(*batch, partner, lam, tau, step.mixing)
    return sage.mix(*batch, partner, lam, tau, guided=False)


def all_mixes(batch, shifts):
    """A batch mixed by every version: lambda = 0.4, the same partners and 1 % of the shifts."""
    draw = torch.Generator().manual_seed(seed)
    partner = torch.randperm(len(batch[0]), generator=draw)
    tau = shifts[torch.randperm(len(shifts), generator=draw)[:len(shifts) // 100]]
    rows = {"SAGE": ("sage", tau), "w/o OR": ("without rearrangement", no_shift),
            **{name: (name, tau) for name in READINGS}}
    return {name: mixed_by(row, batch, partner, 0.4, some) for name, (row, some) in rows.items()}

# %% [markdown]
# ## What replaces a part
#
# SAGE moves the second image by $\tau^*$ and mixes with the mask $M$, which compares the two
# weighted saliency maps. *Without optimal rearrangements* (w/o OR) nothing is moved; that is clear.
# *Without saliency-guided mixup* (w/o SM) is not. The paper says that a component is "removed or
# replaced by an existing technique", and that this one "simply replaces one image region with the
# other image instead of performing smooth saliency-based mixing". Which region? The authors
# published no code. So we train four readings. All have SAGE's partners, $\lambda$ and shift, and
# differ in the mask:
#
# ```{math}
# :label: eq-without
# \begin{aligned}
# \text{SAGE: } & M = \frac{\tilde s_1}{\tilde s_1 + \mathcal T(\tilde s_2, \tau^*)} \\
# \text{w/o OR: } & \tau^* = 0 \\
# \text{w/o SM, whole: } & M = 1 - \mathcal T(\mathbf 1, \tau^*) \\
# \text{w/o SM, rounded: } & M = 1 \text{ where } \tilde s_1 > \mathcal T(\tilde s_2, \tau^*)
#   \text{, else } 0 \\
# \text{w/o SM, box: } & M = 1 - \mathcal T(\mathbf 1_{\text{box}}, \tau^*) \\
# \text{w/o SM, uniform: } & M = \lambda
# \end{aligned}
# ```
#
# $\tilde s_1$ and $\tilde s_2$ are the two smoothed maps, each scaled to sum to its weight,
# $\lambda$ and $1-\lambda$. $\mathbf 1$ is a map of ones, so $\mathcal T(\mathbf 1, \tau^*)$ is one
# where the moved image covers the frame. $\mathbf 1_{\text{box}}$ is one inside the box and zero
# elsewhere.
#
# - *Whole* pastes the moved image as it is. This is the shortest reading of the sentence, and
#   `guided=False` of `Sage`.
# - *Rounded* replaces the region where the other image is more salient.
# - *Box* pastes a box of the area $1-\lambda$ around the partner's most salient pixel, moved with
#   the partner. This is SaliencyMix's box, an existing technique that replaces a region. A box at a
#   random place, as in CutMix, would also undo the search, which chose $\tau^*$ for the salient
#   pixels.
# - *Uniform* is Mixup with the moved partner. It replaces no region, but it is the existing
#   technique that SM started from.
#
# The next cell has the obvious version of all six, for one pair of images, pixel by pixel. The
# library's masks follow below it; the lines that mix with them are those of
# [chapter 5](05_algorithm_1.ipynb).

# %%
def pixel_by_pixel(first, second, a, b, lam, tau, version):
    """The mixed image and the first image's share in the label."""
    out, share = torch.zeros_like(first), 0.0
    (top, left), half = divmod(int(b.argmax()), 32), int(32 * (1 - lam) ** 0.5) // 2
    for row in range(32):
        for column in range(32):
            r, c = row - int(tau[0]), column - int(tau[1])  # its place before the move
            inside = 0 <= r < 32 and 0 <= c < 32
            q, pixel = (float(b[r, c]), second[:, r, c]) if inside else (0.0, torch.zeros(3))
            p = float(a[row, column])
            boxed = inside and all(-half <= away < half for away in (r - top, c - left))
            m = {"whole": 1.0 - inside, "rounded": float(p > q), "box": 1.0 - boxed,
                 "uniform": lam}.get(version, p / max(p + q, 1e-30))
            out[:, row, column] = m * first[:, row, column] + (1 - m) * pixel
            share += m / 32**2
    return out, share


mixes = all_mixes((x, y, s), all_shifts)
partner = mixes["SAGE"].pair
a, b = sage.weighted(x, y, s, partner, 0.4)
for name, ours in mixes.items():
    image, share = pixel_by_pixel(x[0], x[partner[0]], a[0, 0], b[0, 0], 0.4, ours.tau[0], name)
    torch.testing.assert_close(ours.x[0], image, rtol=1e-4, atol=1e-5)
    assert abs(float(ours.share[0]) - share) < 1e-5
show.source(sage_controls.mask_of)


# %% [markdown]
# ## Figure 8
#
# The figure shows the pair of the batch, of two classes, that gains most saliency by moving,
# because the two objects are in the same place: first of shapes, then of
# [photographs](02_saliency.ipynb). $\lambda$ is 0.4. Above each mask (blue: the image itself, red:
# its partner) are two numbers. $\gamma$ is the share that the label gives to the image. $v$ of
# Equation 4 is the total saliency that the mixed image keeps.

# %% mystnb={"image": {"alt": "A dotted disc and its partner, a striped square at the same place. SAGE moves the square to the right, beside the disc; without rearrangement the two melt into one. Of the readings without guided mixing, the whole partner hides most of the disc, the rounded mask shows both with hard edges, the box is a square cut out of the partner, and the uniform mask fades both. The share gamma and the saliency kept, v, are written above each of the masks. Then the same for two photographs, a flower and a pagoda."}}
def figure_8(data, batch, mixes, **options):
    """The pair of a batch that gains most saliency by moving, mixed by every version."""
    x, partner = batch[0], mixes["SAGE"].pair
    a, b = sage.weighted(*batch, partner, 0.4)
    masks = {name: mixed.mask for name, mixed in mixes.items()}
    v = {name: (m * a + (1 - m) * shift(b, mixes[name].tau)).sum((1, 2, 3))
         for name, m in masks.items()}
    assert all((v["rounded"] >= v[name] - 1e-6).all() for name in ("SAGE", *READINGS))
    differ = (batch[1] * batch[1][partner]).sum(1) == 0  # in their class
    k = int(((v["SAGE"] - v["w/o OR"]) * differ).argmax())
    shown = [data.pixels(z[k]) for z in (x, x[partner], *(mixed.x for mixed in mixes.values()))]
    names, of_masks = ["image", "partner", *masks], [None, None, *(m[k] for m in masks.values())]
    numbers = ["", "", *(f"γ {float(m[k].mean()):.2f}\nv {float(v[name][k]):.2f}"
                         for name, m in masks.items())]
    for part in (slice(4), slice(4, 8)):  # four to a row: readable on a phone
        show.grid([shown[part], of_masks[part]], [names[part], numbers[part]], kind="mask",
                  **options)


figure_8(test, (x, y, s), mixes, size=1.1)
photos, photo_net = teaching.photographs(seed=seed)
batch = photos.normalised()[:60], one_hot(photos.labels[:60], len(photos.classes))
batch = *batch, smooth(teaching.saliency_maps(photo_net, *batch), 3)  # images, labels, maps
figure_8(photos, batch, all_mixes(batch, offsets(96, 96)), size=1.1, jpeg=True)

# %% [markdown]
# **What to see.** Shapes and photographs show the same. Without rearrangement the two objects melt
# into one. Pasted whole, the partner hides whatever it covers, and the image survives only in the
# strip that the shift uncovers. The rounded mask shows both objects, with hard edges. The box keeps
# the partner's object, or its most salient part, and cuts what lies around it. The uniform mask
# fades both objects and darkens the strip. At a given shift the rounded mask keeps the most
# saliency of all, as the `assert` checks: by Equation 4 alone the soft mask is not the best one.
#
# ## A whole batch
#
# One pair proves nothing. We mix whole batches as a training step would, with the same partners and
# random numbers for each version. For each pair we record $v$, the part of its own saliency that
# each of the two images keeps, and the label.

# %%
def one_batch(k, **options):
    """For batch k, (5, 100): v, the saliency kept of the image and the partner, the image's share
    in the label, and the share of pixels that belong to no image."""
    step = sage_controls.SageControls(**options).seed(k)
    partner, lam, _ = step.draws(x)
    mixed = step.seed(k).mix_with_saliency(x, y, maps)
    a, b = sage.weighted(x, y, s, partner, lam)
    own = (mixed.mask * a).sum((1, 2, 3))
    other = ((1 - mixed.mask) * shift(b, mixed.tau)).sum((1, 2, 3))
    fill = (mixed.mask == 0) & (shift(torch.ones_like(b), mixed.tau) == 0)
    fill = fill.float().mean((1, 2, 3))
    return torch.stack([own + other, own / lam, other / (1 - lam), mixed.share, fill])


without_or = VERSIONS["without rearrangement"]
parts = {"SAGE": {}, "w/o OR": without_or, "w/o OR, u = 1": {**without_or, "u": 1.0},
         **{f"w/o SM, {name}": VERSIONS[name] for name in READINGS}}
measures = {name: torch.cat([one_batch(k, **options) for k in range(batches)], 1)
            for name, options in parts.items()}
mean = {name: values.mean(1) for name, values in measures.items()}
whole, rounded, box, uniform = (mean[f"w/o SM, {name}"] for name in READINGS)
assert all(values[4].eq(0).all() for values in measures.values())  # no pixel belongs to no image
assert not as_told or (whole[1] < mean["SAGE"][1] - 0.1 and whole[2] > mean["SAGE"][2] + 0.05)
assert not as_told or abs(mean["SAGE"][0] - whole[0]) < 0.1
assert not as_told or uniform[0] < min(whole[0], box[0]) - 0.05
high, low = ([float(one[3]) for one in group] for group in (
    (mean["SAGE"], mean["w/o OR, u = 1"], box), (mean["w/o OR"], whole, uniform)))
assert not as_told or max(low) + 0.05 < rounded[3] < min(high) - 0.02

# %% mystnb={"image": {"alt": "Outlines of histograms of the label share gamma for SAGE, without rearrangement at u of 0.6 and of 1, and without guided mixing, pasted whole, rounded and as a box; SAGE and the box lie around one half, the two ablations at u of 0.6 lie lower, and the rounded mask spreads over both."}}
# NBVAL_IGNORE_OUTPUT
display(show.table(
    ["version", "v", "kept of the image", "kept of the partner", "mean share γ",
     "standard deviation of γ", "mean distance of γ from ½"],
    [[name, *map(float, (*mean[name][:4], values[3].std(), (values[3] - 0.5).abs().mean()))]
     for name, values in measures.items()],
    f"{batches} batches of 100 pairs of {dataset}; u = 0.6 where it is not named"))
_, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
styles = (("#009e73", "-"), ("#d55e00", "-"), ("#d55e00", ":"), ("#0072b2", "-"), ("#0072b2", ":"),
          ("#5b6470", "-"))
for (name, values), (colour, line) in zip(measures.items(), styles, strict=False):
    axis.hist(values[3].numpy(), bins=25, range=(0, 1), density=True, histtype="step", label=name,
              color=colour, linestyle=line, lw=1.8)
axis.set(xlabel="share γ of the image in its label", ylabel="density", xlim=(0, 1))
axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# **What to see.** The total saliency $v$ hardly distinguishes SAGE from a partner pasted whole.
# (All readings use the shift that Equation 4 chooses with the soft mask.) The total hides a
# difference: pasting keeps most of the partner's saliency and little of the image's. The totals
# agree because the partner's map has the larger weight when $\lambda$ is small. The uniform mask,
# which knows nothing about saliency, keeps least.
#
# Each ablation also changes more than its own part. At $u = 0.6$ SAGE's labels are centred near one
# half, and so are the box's. Those of w/o OR and of the other three readings lean towards the
# partner: *the other settings stay tuned for the full method*. (With the uniform mask $\gamma$ is
# $\lambda$ itself, and the figure leaves it out.) With nothing moved, the two images play the same
# role, so $u = 1$ would treat them equally; it also spreads the shares more widely. The paper does
# not say that $u$ was tuned again. Our runs keep it; a fairer ablation would tune it.
#
# No version leaves pixels that belong to no image. The smoothed maps are above zero everywhere, a
# paste leaves the rest to the image, and the uniform mask gives it $\lambda$ of every pixel.
#
# ## Both parts at once
#
# Table 3 removes one part at a time. What if both are removed? That depends on the reading, and
# the next cell checks what is left. *Whole*: the partner covers the image completely, and its label
# replaces the image's label. The step sees the clean batch, and the same batch again in another
# order: this is vanilla's gradient. (Only BatchNorm's running statistics differ: they are updated
# twice per step.) *Box*: SaliencyMix's mixing, with the network's maps in place of its detector.
# *Uniform*: Mixup with $\lambda$ below $u$. *Rounded*: the more salient pixel of the two at each
# place.

# %%
def gradients(method):
    """The gradient of one step of a method, parameter by parameter."""
    copy = deepcopy(net).train()
    copy.zero_grad()
    method.seed(seed).loss(copy, x, y).backward()
    return [p.grad for p in copy.parameters()]


neither = {name: mixed_by(name, (x, y, s), partner, 0.4, no_shift) for name in READINGS}
boxes = saliencymix.box(s[partner, 0], torch.tensor(0.4))
a, b = sage.weighted(x, y, s, partner, 0.4)
known = {"whole": (x[partner], y[partner]), "rounded": (torch.where(a > b, x, x[partner]), None),
         "box": saliencymix.mix(x, y, partner, boxes),
         "uniform": mixup.mix(x, y, partner, torch.tensor(0.4))}
for name, other in known.items():
    image, label = other if isinstance(other, tuple) else (other.x, other.y)
    torch.testing.assert_close(neither[name].x, image)
    assert label is None or torch.allclose(neither[name].y, label, atol=1e-5)
plain = gradients(catalog.load(methods, "vanilla"))
for p, q in zip(gradients(sage.Sage(guided=False, rearranged=False)), plain, strict=True):
    torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-6)

# %% [markdown]
# So with *whole* the vanilla row of Table 3 is the fourth corner of a square, and the reported
# numbers give the *interaction* of the two parts. With $A$ for the accuracy of each corner:
#
# ```{math}
# :label: eq-interaction
# I = A_{\text{both}} - A_{\text{SM only}} - A_{\text{OR only}} + A_{\text{neither}} .
# ```
#
# $I = 0$ if each part adds the same with the other as without it. The last column is the largest
# standard deviation between seeds at which four means of three runs would decide that $I$ is not
# zero. The other readings have no fourth corner in the paper.

# %%
rows = []
for data in DATA:
    neither, no_sm, no_or, both = (reported["components", name][data] for name in (
        "vanilla", "without saliency-guided mixup", "without rearrangement", "sage"))
    interaction = both - no_sm - no_or + neither
    limit = abs(interaction) / (stats.t.ppf(0.975, 4 * (3 - 1)) * (4 / 3) ** 0.5)
    assert interaction < -0.8 and 0.3 < limit < 0.4
    gain, least = both - neither, min(no_sm, no_or)
    assert least - neither > 0.6 * gain > 0.4 * gain > both - least
    wrong = [math.log(100 - corner) for corner in (both, no_sm, no_or, neither)]
    assert wrong[0] - wrong[1] - wrong[2] + wrong[3] > 0  # errors: the opposite sign says the same
    rows.append([DATA[data], no_or - neither, both - no_sm, no_sm - neither, both - no_or,
                 interaction, limit])
assert records.reported(1)[1]["cutmix"] > max(no_sm, no_or)  # CIFAR-100, PreActResNet18
show.table(["data", "SM alone adds", "SM after OR", "OR alone adds", "OR after SM", "I",
            "decided below s ="], rows, "From Table 3, points")

# %% [markdown]
# **What to see.** Either part alone brings more than three fifths of SAGE's gain over vanilla, and
# the second part adds less than two fifths. So a small loss when a part is removed does not show
# that the part does little: the other part takes over. "Each of the components is important", says
# the paper. By its numbers they also do much of the same work. Perhaps that common work is mixing
# as such, which either part alone still does. This is a hypothesis. CutMix uses no saliency and
# moves nothing, and on CIFAR-100 its reported accuracy is above both ablations.
#
# The reason is not a lack of room near 100 %: the `assert` finds the same interaction on the
# logarithm of the error. But the argument depends on the reading. If the paper's ablation was not
# *whole*, the vanilla row is no corner of its square. Only our own runs can have all four corners:
# see "The interaction in each reading" below.
#
# ## The search space
#
# The paper finds a search of 1 % better than a search of all shifts. It supposes that worse shifts
# act as regularisation and bring "more diversity". What changes in a batch? All fractions get the
# same partners and the same $\lambda$. Each set of candidates is drawn twice, to see how far two
# draws alone move the same pair apart.

# %%
# NBVAL_IGNORE_OUTPUT
fractions, middle = (0.01, 0.1, 0.5, 1.0), len(all_shifts) // 2
assert all_shifts[middle].eq(0).all()
assert int(0.01 * len(all_shifts)) == len(sage.Sage().seed(0).candidates(32, 32, "cpu")) == 39


def searched(f, v, flat, draw):
    """What a search of the fraction f finds; v (100, N) and flat (1, N) hold Equation 4 for all
    shifts, with the network's maps and with uniform ones."""
    size = int(f * len(all_shifts))
    part, other = (torch.randperm(len(all_shifts), generator=draw)[:size] for _ in range(2))
    best, again = (candidates[v[:, candidates].argmax(1)] for candidates in (part, other))
    value = v.gather(1, best[:, None])[:, 0]
    below, same = value < v[:, middle] - 1e-6, best == part[flat[0, part].argmax()]
    lengths = [float(z.float().norm(dim=1).mean())
               for z in (all_shifts[best], all_shifts[best] - all_shifts[again])]
    return [len(best.unique()), *lengths, float(value.mean()),
            *(100 * float(each.float().mean()) for each in (below, same))]


def values_of_shifts(k):
    """Equation 4 of all shifts for batch k, with the network's maps and with uniform ones; and the
    generator."""
    draw = torch.Generator().manual_seed(k)
    partner, lam = torch.randperm(100, generator=draw), 0.6 * torch.rand((), generator=draw)
    flat = [w[:1] for w in sage.weighted(x, y, torch.ones_like(s), partner, lam)]
    v = total_saliency(*sage.weighted(x, y, s, partner, lam), all_shifts)
    return v, total_saliency(*flat, all_shifts), draw

# %%
# NBVAL_IGNORE_OUTPUT
by_fraction = {f: [] for f in fractions}
for k in range(batches // 5):
    v, flat, draw = values_of_shifts(k)
    for f in fractions:
        by_fraction[f].append(searched(f, v, flat, draw))
table = {f: [sum(column) / len(column) for column in zip(*rows, strict=True)]
         for f, rows in by_fraction.items()}
few, tenth, full = (table[f] for f in (0.01, 0.1, 1.0))
assert not as_told or (few[0] < 20 < full[0] and few[2] > 3 and full[2] < 0.05)
assert not as_told or (few[4] > 10 and full[4] == 0 and few[5] > 300 / 39)
assert not as_told or (few[2] - tenth[2] > tenth[2] - full[2]
                       and tenth[3] - few[3] > full[3] - tenth[3] > 0)
show.table(["searched", "different shifts in 100 pairs", "mean length of a shift",
            "distance between two draws", "v", "keeps less than not moving, %",
            "same choice by uniform maps, %"],
           [[f"{100 * f:g} %", *table[f]] for f in fractions])

# %% [markdown]
# **What to see.** "Diversity" has two meanings here, and they go in opposite directions. *Across*
# draws a small sample is more diverse. At a fixed $\lambda$ the same pair gets another shift each
# time, where the full search always finds the same one. (In training the same pair almost never
# returns.) *Within* a batch a small sample is far less diverse, because all pairs share 39
# candidates and most of them choose one of the few good ones.
#
# A search of 1 % also keeps less saliency than *not moving at all* in many pairs, since the zero
# shift is rarely among its candidates. And uniform maps, which know nothing about the images,
# choose the same shift far more often than chance would: much of the choice consists in keeping the
# partner in the frame ([chapter 8](08_search.ipynb) follows this over $\lambda$). None of this
# tells which search trains the better network.
#
# ## What three runs can decide
#
# Take two versions with three runs each and the same standard deviation $s$ between seeds. The 95 %
# $t$-interval of their difference $d$ excludes zero if $|d| > t_{0.975,\,4}\; s \sqrt{2/3}$. The
# paper gives means and no standard deviations. So we ask for the largest $s$ at which each reported
# difference would be decided. This is the most favourable case: it takes each difference on its own
# and ignores the error of the test set ([chapter 11](11_image_classification.ipynb)).

# %%
per_point = float(stats.t.ppf(0.975, 4)) * (2 / 3) ** 0.5
control, limits, rows = reported["components", "sage"], {}, []
for (part, setting), row in reported.items():
    if setting in ("vanilla", "sage", "1 %") or (part, setting) == ("eta", 0.7):
        continue
    gaps = [row[data] - control[data] for data in DATA]
    limits[part, setting] = [abs(gap) / per_point for gap in gaps]
    rows.append([part, str(setting), *(text for gap in gaps for text in (
        ("control", "") if gap == 0 else (f"{gap:+.2f}", f"{abs(gap) / per_point:.2f}")))])
ten, fifty, whole = (reported["search", f"{percent} %"] for percent in (10, 50, 100))
assert whole["cifar10"] > ten["cifar10"] > fifty["cifar10"]
assert ten["cifar100"] > whole["cifar100"] > fifty["cifar100"]
for data in DATA:
    accuracies = [row[data] for row in (ten, fifty, whole)]
    assert max(accuracies) - min(accuracies) < 0.115 < 0.25 < control[data] - max(accuracies)
assert [round(limit, 2) for limit in limits["search", "10 %"]] == [0.12, 0.19]
show.table(["part", "setting", "CIFAR-10, minus SAGE", "decided below s =", "CIFAR-100, minus SAGE",
            "decided below s ="], rows, "Differences reported in Tables 3 and 7, points")

# %% [markdown]
# **What to see.** The difference between 1 % and 10 % is decided on CIFAR-10 only if the standard
# deviation is below an eighth of a point, and on CIFAR-100 only below a fifth. The other three
# sizes differ by about a tenth of a point from each other, in no order: 50 % comes last on both
# data sets. What the paper reports is a single step, from 1 % to the rest. In our batches some
# quantities change most at this step too, $v$ and the distance between two draws. But the share of
# shifts that are worse than not moving changes most afterwards. So the table does not single out a
# cause, and it does not show that the step is more than luck.
#
# The paper itself says two things about it: 1 % "does not affect classification performance"
# (section 3.4), and it "works best" (section 4.4).
#
# ## What would break it
#
# The natural mistake is to run several settings, to call the best one on the test set the method,
# and to call the others ablations. The supplement says that "we use the best result as the control
# group". Take four versions of *equal* quality, with three runs each:

# %%
runs_of_equals = seed_std * torch.randn(20_000, 4, 3, generator=torch.Generator().manual_seed(seed))
mean_of, variance = runs_of_equals.mean(2), runs_of_equals.var(2)
choices = {"named beforehand": torch.zeros(len(mean_of), 1, dtype=torch.long),
           "the best of the four": mean_of.argmax(1, keepdim=True)}
rows = []
for name, choice in choices.items():
    lead = mean_of.gather(1, choice) - mean_of
    error = ((variance + variance.gather(1, choice)) / 3).sqrt()
    decided = lead > stats.t.ppf(0.975, 4) * error
    leads_all, any_decided = (lead >= 0).all(1), decided.any(1)
    rows.append([name, float(lead.sum(1).mean()) / 3,
                 *(round(100 * float(event.float().mean())) for event in (leads_all, any_decided))])
assert abs(rows[0][1]) < 0.01 and 0.77 < rows[1][1] / seed_std < 0.8
assert rows[1][2] == 100 and rows[1][3] > 2 * rows[0][3]
first = {row["dataset"]: row for row in records.reported(1) if row["model"] == "preactresnet18"}
for data in first:
    eta, u = 1 - tuned[data]["reuse"], tuned[data]["u"]
    names = ("components", "sage"), ("search", "1 %"), ("eta", eta), ("u", u)
    assert [reported[name][data] for name in names] == [first[data]["sage"]] * 4
    assert reported["components", "vanilla"][data] == first[data]["vanilla"]
    for part in ("search", "eta", "u"):
        column = [row[data] for key, row in reported.items() if key[0] == part]
        assert max(column) == first[data]["sage"]
leads = {DATA[data]: control[data] - (ten[data] + fifty[data] + whole[data]) / 3 for data in DATA}
leads = " and ".join(f"{lead:.2f} on {name}" for name, lead in leads.items())
show.table(["control", "its mean lead, points", "leads all others, %",
            "a lead 'decided' at 95 %, %"],
           rows, f"No version is better; the standard deviation is {seed_std}. "
                 f"The reported lead of 1 % over the mean of the others is {leads}.")

# %% [markdown]
# **What to see.** Choosing the best as the control creates a lead of nearly four fifths of the
# standard deviation, and more than doubles the false decisions. Whether that happened here depends
# on a standard deviation that we do not know. The remedy is cheap: choose on held-out images, then
# train the chosen version again with new seeds.
#
# As far as its number tells, the reported control was not trained again. It is Table 1's number in
# every table, as the cell checks. This also confirms two readings. $\eta = 0.7$ and $u = 0.6$
# (CIFAR-10) or $0.5$ (CIFAR-100), which the text of the supplement gives, are the rows of its Table
# 7 that carry Table 1's numbers. And each control is the best of its column.
#
# ## Table 7, left: eta
#
# The table's $\eta$ is the share of the *mixed* gradient, `1 - reuse` here.
# [Algorithm 1](05_algorithm_1.ipynb) shows why it cannot be what the paper's formula says.
# Parameter by parameter, with the same seed:

# %%
# NBVAL_IGNORE_OUTPUT
mixed_gradient, rows = gradients(sage.Sage(reuse=0)), []
for eta in (0.5, 0.7, 1.0):
    step = gradients(sage.Sage(reuse=1 - eta))
    for g, clean, augmented in zip(step, plain, mixed_gradient, strict=True):
        torch.testing.assert_close(g, (1 - eta) * clean + eta * augmented, rtol=1e-3, atol=1e-6)
    g, clean, augmented = (torch.cat([p.flatten() for p in side])
                           for side in (step, plain, mixed_gradient))
    cosine = float(torch.cosine_similarity(g, clean, 0))
    rows.append([eta, round(1 - eta, 1), float(g.norm() / augmented.norm()), cosine])
assert not as_told or (rows[0][3] > rows[1][3] > rows[2][3] and rows[0][2] < 0.95)
show.table(["eta", "reuse", "length, relative to the mixed gradient",
            "cosine with the clean gradient"], rows, "One step of a small network")

# %% [markdown]
# **What to see.** $\eta$ turns the step, and here it also changes its length, at one learning rate
# for all rows. And $\eta = 1$ is the only row whose step uses one batch of images instead of two.
# The table measures all of this together.
#
# ## Table 7, right: u
#
# $\lambda$ is uniform on $(0, u)$. The paper gives a reason for $u < 1$: above 0.6 diversity
# "greatly decreases", since the first image dominates, and "it is often better to just exclude" the
# other. Does this happen here?

# %%
lambdas = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
lines = {name: [] for name in ("γ > 0.9", "γ < 0.1", "γ > 0.9, nothing moved",
                               "γ < 0.1, nothing moved", "partner's saliency lost")}
for lam in lambdas:
    events = []
    for k in range(batches // 10):
        step = sage.Sage().seed(k)
        partner, tau = step.draw_permutation(100, "cpu"), step.candidates(32, 32, "cpu")
        moved, unmoved = (sage.mix(x, y, s, partner, lam, shifts) for shifts in (tau, no_shift))
        left = shift(sage.weighted(x, y, s, partner, lam)[1], moved.tau).sum((1, 2, 3))
        shares = [share for mixed in (moved, unmoved)
                  for share in (mixed.share > 0.9, mixed.share < 0.1)]
        events.append(torch.stack([*shares, 1 - left / (1 - lam)]))
    for line, value in zip(lines.values(), torch.cat(events, 1).mean(1).tolist(), strict=True):
        line.append(value)
high, low, unsearched, _, lost = (dict(zip(lambdas, line, strict=True)) for line in lines.values())
assert not as_told or max(high[lam] for lam in lambdas if lam <= 0.5) < 0.05 < 0.5 < high[0.9]
assert not as_told or max(low.values()) < 0.2
assert not as_told or (lost[0.9] > lost[0.6] > lost[0.3] and high[0.8] > unsearched[0.8])
partner = sage.Sage().seed(0).draw_permutation(100, "cpu")
one_way = sage.mix(x, y, s, partner, 0.9, no_shift)
other_way = sage.mix(x, y, s, partner.argsort(), 0.1, no_shift)  # the two images exchanged
torch.testing.assert_close(other_way.share[partner], 1 - one_way.share, rtol=1e-4, atol=1e-5)

# %% mystnb={"image": {"alt": "Above: densities of the label share gamma for u of 0.5, 0.6 and 1; only the last has a peak near one. Below: over lambda, the share of pairs with gamma above 0.9 and the part of the partner's saliency that is lost, while gamma below 0.1 stays rare. The lost part grows smoothly from 0.2 on, the share of pairs steeply beyond 0.6. With nothing moved, dotted, the two shares mirror each other."}}
_, axes = plt.subplots(2, 1, figsize=(5.2, 6), layout="constrained")
for u, colour in ((0.5, "#56b4e9"), (0.6, "#009e73"), (1.0, "#d55e00")):
    shares = torch.cat([one_batch(k, u=u)[3] for k in range(batches)])
    axes[0].hist(shares.numpy(), bins=25, range=(0, 1), density=True, histtype="step", lw=1.8,
                 color=colour, label=f"u = {u}")
axes[0].set(xlabel="share γ", ylabel="density", xlim=(0, 1))
axes[0].legend(fontsize=9, frameon=False, loc="upper left")
for (name, line), style in zip(lines.items(), ("-", "-", ":", ":", "--"), strict=True):
    colour = "#5b6470" if "lost" in name else "#d55e00" if ">" in name else "#0072b2"
    axes[1].plot(lambdas, line, style, marker="o", ms=3, label=name, color=colour)
axes[1].set(xlabel="λ", ylabel="share of pairs, or of saliency", ylim=(-0.03, 1.03))
axes[1].legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
plt.show()

# %% [markdown]
# **What to see.** The paper's observation is true here, and between about 0.7 and 0.9 the search is
# most of its cause. As $\lambda$ grows, the best shift pushes the partner *out of the frame*: a
# pixel of the partner adds $b\,(1 - 2M)$ to $v$, by equation {eq}`eq-kernel`, which is
# negative wherever the partner is the weaker of the two. What remains is the first image, with a
# label near one, at values of $\lambda$ where a pair that is not moved (dotted) is still a mix.
#
# At the low end nothing of the kind happens. The search keeps the heavy partner in the frame, and
# the image keeps the rest of the frame. So the search does not treat the two images alike, and a
# bound on one side alone makes sense. With nothing moved the two ends mirror each other (dotted),
# and such a bound makes no sense.
#
# ## Tables 3 and 7
#
# The tables show the reported accuracy, our mean ± standard deviation with the number of seeds in
# brackets, as measured by [the train notebook](experiments/train.ipynb), and the difference between
# the two, where the recipe is the paper's. Then follows the difference to SAGE, as reported and as
# measured over the seeds that both versions have, with its two standard errors and whether it is
# decided. The ablations of a table form one family. Vanilla is not one of them:
# [chapter 11](11_image_classification.ipynb) compares it. There is a table for each recipe that an
# ablation has been run with.

# %% tags=["records", "nbval-ignore-output"]
def what_it_says(family, runs, kind):
    """The sentences below a table: what is decided, and whether the ablations are below SAGE."""
    if runs.keys() == {"vanilla"}:
        return "Only vanilla has been run with this recipe: there is no ablation to compare."
    text = summary.in_words(family, runs, "sage", outside=("vanilla",))
    gaps = family.differences
    ahead = [label for label, gap in gaps.items() if gap.mean > 0]
    if gaps:
        text += (" In the paper every ablation is below SAGE. Here the mean is above SAGE's for "
                 f"{len(ahead)} of {len(gaps)}" + (f": {', '.join(ahead)}." if ahead else "."))
    if ahead and kind.startswith("shortened"):
        text += (" A short training favours whatever learns fastest, and that says little about "
                 "where the versions end.")
    return text


all_records = records.every(results or records.RESULTS)

# %% tags=["records", "nbval-ignore-output"]
header = ["version", "reported, %", "measured, %", "difference", "minus SAGE, reported",
          "minus SAGE, measured", "error of the seeds", "error of the test set", "decided"]
for number, data in itertools.product(TABLES, DATA):
    rows = {"sage" if (c.method, c.options) == ("sage", {}) else c.label: c  # printed twice
            for c in CELLS if (c.table, c.dataset) == (number, data)}
    said = {label: c.reported for label, c in rows.items()}
    asked = {label: (c.method, c.options) for label, c in rows.items()}
    measured = summary.runs_by_row(all_records, data, "preactresnet18", asked)
    where = f"Table {number}, {DATA[data]}"
    for kind, runs in (measured or {"": {}}).items():
        recipe = plans.recipe_text(next(iter(runs.values()))[0]) if runs else ""
        ablations = {label: rs for label, rs in runs.items() if label != "vanilla"}
        family = summary.against(ablations, "sage", "ablations", f"equal seeds, {where}")
        if not ablations.keys() - {"sage"}:  # nothing to compare: no table
            said_of = f"The recipe is {recipe}. {what_it_says(family, runs, kind)}"
            display(show.Markdown(f"*{where}.* {said_of if runs else '**Not run.**'}"))
            continue
        body = []
        for label, *row, gap in summary.compare(said, runs, baseline="sage"):
            reported_gap = f"{said[label] - said['sage']:+.2f}" if label != "sage" else ""
            body.append([label, *row, reported_gap, gap, *summary.evidence(family, label)])
        display(show.table(header, body, f"{where}. The recipe is {recipe}. Trained on "
                                         f"{summary.machines(runs)}."))
        display(show.Markdown(what_it_says(family, runs, kind)))

# %% [markdown]
# The sentences below each table are computed from the records. For a recipe that is not the paper's
# they describe this recipe and nothing else.
#
# ## The interaction in each reading
#
# The plan `book/plans/readings.yml` trains SAGE, SAGE without rearrangement, and each reading of
# w/o SM with the shift and without it (for *whole*, vanilla is the one without). So each reading
# has a square of its own, and an $I$ of {eq}`eq-interaction`, seed by seed. If $I$ is *decided* to
# be below 0 in all readings, the two parts do the same work under this recipe, whatever the paper
# meant by "replaces one image region". If the sign depends on the reading, the argument above rests
# on our choice. The readings of one recipe and data set are decided together.

# %% tags=["records", "nbval-ignore-output"]
planned = report.of_plan(plans.PLANS / "readings.yml", all_records)
squares = {place: runs for place, runs in planned.items() if place[1] in DATA}
corners = {name: ("sage", "without rearrangement", name,
                  "vanilla" if name == "whole" else f"{name}, not moved") for name in READINGS}
shown = 0
for (_, data), runs in squares.items():
    sides = {name: [runs.get(label, []) for label in four] for name, four in corners.items()}
    every = {name: statistics.interaction(*four, ACCURACY) for name, four in sides.items()}
    interactions = {name: gap for name, gap in every.items() if gap}
    if not interactions:
        continue
    family = statistics.Family(f"the interaction by readings of w/o SM, {DATA[data]}", interactions)
    body = [[name, *map(summary.accuracy, four), interactions.get(name, ""),
             *summary.evidence(family, name)] for name, four in sides.items()]
    recipe = plans.recipe_text(runs["sage"][0])
    display(show.table(["w/o SM", "SAGE", "SM only, %", "OR only, %", "neither, %", "I",
                        "error of the seeds", "error of the test set", "I is"], body,
                       f"{DATA[data]}. The recipe is {recipe}."))
    below = [name for name, gap in interactions.items() if gap.mean < 0]
    caveat = " The recipe is not the paper's: this neither supports nor contradicts the paper."
    display(show.Markdown(f"*{family.rule}* {family.sentence} The mean of I is below 0 in "
                          f"{len(below)} of {len(interactions)}"
                          + (f": {', '.join(below)}." if below else ".")
                          + ("" if runs["sage"][0]["kind"] == "paper" else caveat)))
    shown += 1
if not shown:
    display(show.Markdown("No reading has all four corners: **not run**."))

# %% [markdown]
# ## What is saliency worth?
#
# Tables 3 and 7 do not ask this. Every row of theirs computes saliency maps in a first pass and
# searches with them. A control keeps the first pass, the search and the gradient reuse, and takes
# away what the maps say about the image. The plan `book/plans/controls.yml` has four controls:
#
# - *uniform maps*: every pixel counts the same;
# - *another image's map*: each image gets the map of another image of the batch;
# - *a random shift*: one of the candidates, without a search;
# - *uniform maps and a random shift*: both.
#
# If the maps matter, SAGE is above the first two. If the search matters, it is above the third.
#
# The paper also says that its definition of saliency, the gradient of the loss, "is advantageous
# for data augmentation" (section 3.1), and shows no experiment. The definition before it is the
# gradient of the *class score*, the logit of the true class {cite:p}`simonyan2013deep`. The
# gradient of an image's loss is a weighted sum of the gradients of all its logits, so the two maps
# differ by the gradients of the other classes' logits. `gradient_of="score"` changes the maps and nothing
# else: the step still reuses the gradient of the loss. One backward pass then no longer serves
# both, so the first pass needs two backward passes, and the step takes 7 units of work instead of
# 6. That is the efficiency which section 3.4 claims for the definition. The last control is this:
#
# - *class score*, in the plan `readings.yml`. Exercise 12.4 computes such maps one image at a time.
#
# The controls of one data set form a family.

# %% tags=["records", "nbval-ignore-output"]
header = ["version", "measured, %", "minus SAGE", "error of the seeds", "error of the test set",
          "decided", "rank"]
planned = report.of_plan(plans.PLANS / "controls.yml", all_records)
for place, runs in squares.items():
    if "class score" in runs:
        usual = {label: runs[label] for label in ("vanilla", "sage") if label in runs}
        planned[place] = {**planned.get(place, usual), "class score": runs["class score"]}
planned = {place: runs for place, runs in planned.items()
           if place[1] in DATA and runs.keys() - {"vanilla", "sage"}}
for (_, data), runs in planned.items():
    without = {label: rs for label, rs in runs.items() if label != "vanilla"}
    family = summary.against(without, "sage", "controls", f"equal seeds, {DATA[data]}")
    ranking = rank(runs, ACCURACY, DATA[data])
    ranks = ranking.ranks if ranking.decides else {}
    body = [[label, summary.spread(map(summary.final, rs)), family.differences.get(label, ""),
             *summary.evidence(family, label), ranks.get(label, "")] for label, rs in runs.items()]
    recipe = plans.recipe_text(next(iter(runs.values()))[0])
    display(show.table(header, body, f"{DATA[data]}. The recipe is {recipe}. Trained on "
                                     f"{summary.machines(runs)}."))
    sentences = summary.in_words(family, runs, "sage", outside=("vanilla",))
    display(show.Markdown(f"{sentences} {ranking.sentence}"))
if not planned:
    display(show.Markdown("No control has been run: **not run**."))

# %% [markdown]
# ## Exercises
#
# ### Exercise 12.1
#
# Take the smallest reported difference that is not zero. If the standard deviation between seeds is
# `seed_std`, how many seeds must each of the two versions have before a difference of that size is
# decided? (Hint: the 95 % $t$-interval of two means of $n$ runs has $2n - 2$ degrees of freedom.)

# %% tags=["hide-cell"]
def half_width(n):
    return stats.t.ppf(0.975, 2 * n - 2) * seed_std * (2 / n) ** 0.5


smallest = min(limit for pair in limits.values() for limit in pair if limit) * per_point
needed = next(n for n in range(2, 1000) if half_width(n) < smallest)
assert half_width(needed - 1) >= smallest and needed > 3
print(f"{needed} seeds of each version for {smallest:.2f} points, with s = {seed_std}")

# %% [markdown]
# The number of seeds grows with the square of $s / d$: half the difference needs four times as
# many. And all of this leaves out the error of the test set, which more seeds cannot reduce.
#
# ### Exercise 12.2
#
# Use the exact masks of the objects as saliency. They are zero elsewhere. How many pixels of SAGE's
# images then belong to no image, and why does the partner's label get them? (Hint: look at $M$ in
# {eq}`eq-without` where both maps are zero.)

# %% tags=["hide-cell"]
step = sage.Sage().seed(seed)
partner, tau = step.draw_permutation(100, "cpu"), step.candidates(32, 32, "cpu")
exact = sage.mix(x, y, teaching.object_masks(test)[:100], partner, 0.4, tau)
fill = (exact.mask == 0) & (shift(torch.ones_like(s), exact.tau) == 0)
assert fill.float().mean() > 0.05 or dataset != "shapes"  # their masks are exact
assert (exact.x * fill).eq(0).all()
print(f"{fill.float().mean():.0%} of all pixels")

# %% [markdown]
# Where both maps are zero the mask is 0, so the pixel is the partner's, also where the shift has
# moved the partner away and only black is left. The label's share is the mean of the mask, so these
# black strips count for the partner.
#
# ### Exercise 12.3
#
# This exercise is open. All pairs of a batch share their candidates. What would you change to get
# more diversity, and which of its two meanings would grow? One answer draws 1 % of the shifts anew
# *for each pair*. (Hint: count the different shifts that are chosen.)

# %% tags=["hide-cell"]
v, _, draw = values_of_shifts(seed)
sets = torch.stack([torch.randperm(len(all_shifts), generator=draw)[:39] for _ in range(100)])
own_sets = sets.gather(1, v.gather(1, sets).argmax(1, keepdim=True))
shared = sets[0][v[:, sets[0]].argmax(1)]
assert not as_told or len(own_sets.unique()) > 3 * len(shared.unique())
print(f"different shifts: {len(own_sets.unique())} with a set for each pair, "
      f"{len(shared.unique())} with a shared set")

# %% [markdown]
# Diversity within the batch grows. Across draws nothing changes, since each pair still chooses from
# a random sample of 39 shifts.
#
# ### Exercise 12.4
#
# Compute the maps of the class score with one backward pass for each image, in evaluation mode, and
# compare them with `gradient_of="score"`. Why is one pass for the whole batch enough here, and why
# would it not give the same in training mode? (Hint: which images does a logit depend on?)

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
x_, y_ = x[:8], y[:8]
score = sage_controls.SageControls(gradient_of="score", bn="eval")
score_maps = score.compute_saliency(net, x_, y_)
for k in range(len(x_)):  # one image, one logit at a time
    image = x_[k:k + 1].clone().requires_grad_()
    logit = deepcopy(net).eval()(image)[0, int(y_[k].argmax())]
    grad, = torch.autograd.grad(logit, image)
    by_hand = grad[0].norm(dim=0) / y_.numel()
    torch.testing.assert_close(score_maps[k, 0], by_hand, rtol=1e-3, atol=1e-7)
assert (score.units(), sage.Sage().units()) == (7, 6)
of_loss, of_score = (smooth(method.compute_saliency(net, x, y)) for method in (
    sage.Sage(bn="eval"), score))
alike = torch.cosine_similarity(of_loss.flatten(1), of_score.flatten(1))
assert not as_told or 0.8 < alike.mean() < 0.999
print(f"cosine of the two smoothed maps: {alike.mean():.2f} on average, {alike.min():.2f} at least")

# %% [markdown]
# In evaluation mode a logit depends on its own image alone, so the gradient of the sum of all true
# logits holds each image's own gradient. In training mode BatchNorm lets every logit depend on
# every image. The maps of the loss and of the score are similar on average; for single images they
# can differ clearly.
