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
# # The search, exact and free
#
# SAGE looks for the best of 3,969 shifts for each pair of images, at every step of training. The paper searches one per cent
# of them, at random, and the authors' code takes its time even for that. Must the search cost anything at all?
#
# This chapter takes {eq}`eq-total` from three nested loops to the form that the library uses, one step of algebra at a time.
# Every form gives the same numbers, which an `assert` checks. At the end a search through *all* shifts costs less than a loop
# built as the authors' takes for one in a hundred, and we look at what that one in a hundred really chooses.

# %% tags=["parameters"]
seed = 0
dataset = "shapes"       # or "cifar10", …, with root, through papermill
root = ""
train_images = 1000
epochs = 12
pairs = 100              # images in the batch

# %%
import matplotlib.pyplot as plt
import torch

from sagelib import _search, catalog, datasets, methods, models, records, show, timing
from sagelib.batches import Batches
from sagelib.losses import bce, one_hot
from sagelib.mask import mask
from sagelib.rearrange import offsets, shift, total_saliency
from sagelib.saliency import normalise, saliency, smooth
from sagelib.train import Recipe, fit

train, test = catalog.load(datasets, dataset, root=root or None)
train = train.subset(min(train_images, len(train)))
torch.manual_seed(seed)
net = catalog.load(models, "preactresnet18", classes=len(train.classes), width=8)
shuffle = torch.Generator().manual_seed(seed)
fit(net, Batches(train, 50, generator=shuffle), catalog.load(methods, "vanilla").seed(seed), Recipe(epochs=epochs))
net.eval()
x = test.subset(2 * pairs).normalised().requires_grad_()
y = one_hot(test.subset(2 * pairs).labels, len(train.classes))
maps = normalise(smooth(saliency(torch.autograd.grad(bce(net(x), y), x)[0])))
one, two = maps[:pairs], maps[pairs:]
a, b = 0.3 * one, 0.7 * two
h, w = a.shape[2:]
every = offsets(h, w)
some = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:int(0.01 * len(every))]]

# %% [markdown]
# The maps are those of a briefly trained network: 100 pairs, weighted as SAGE weights them, with $\lambda = 0.3$ for the first.
#
# ## Three nested loops
#
# The definition, for one pair: every shift, every row, every column. The moved map, the mask, and what the mix keeps.

# %%
def nested(a, b, tau):
    v = []
    for down, right in tau:
        total = 0.0
        for i in range(len(a)):
            for j in range(len(a[0])):
                inside = 0 <= i - down < len(a) and 0 <= j - right < len(a[0])
                p, q = a[i][j], b[i - down][j - right] if inside else 0.0
                m = p / (p + q) if p + q > 0 else 0.0
                total += m * p + (1 - m) * q
        v.append(total)
    return torch.tensor(v)


def by_loops(n):
    return torch.stack([nested(a[k, 0].tolist(), b[k, 0].tolist(), some.tolist()) for k in range(n)])


v = total_saliency(a, b, some)
torch.testing.assert_close(by_loops(2), v[:2])

# %% [markdown]
# ## Whole maps
#
# A tensor library moves and masks a whole map at once, or all candidates of one pair at once. This is how one would write
# it first, and how the authors' code is built: image after image, a mask for every candidate.

# %%
def by_masks(n, tau=some):
    found = []
    for k in range(n):
        first = a[k, 0].expand(len(tau), 1, h, w)
        moved = shift(b[k, 0].expand(len(tau), 1, h, w), tau)
        m = mask(first, moved)
        found.append((m * first + (1 - m) * moved).sum((1, 2, 3)))
    return torch.stack(found)


torch.testing.assert_close(by_masks(5), v[:5])

# %% [markdown]
# ## No mask
#
# At one pixel the mix keeps $(p^2 + q^2)/(p + q)$, which is $p + q - 2/(1/p + 1/q)$, as [chapter 4](04_rearrangement.ipynb)
# showed.
# The reciprocals $1/p$ and $1/q$ are computed once for all shifts. What is left for each shift is an addition, a reciprocal
# and a sum.
#
# A pixel without saliency needs no special case: $1/0$ is infinity, and so is whatever is added to it, and one over that is
# exactly zero.

# %%
p, q = torch.tensor([0.2, 0.0, 0.3, 0.0]), torch.tensor([0.5, 0.4, 0.0, 0.0])
m = mask(p, q)
kept = p + q - 2 / (1 / p + 1 / q)
torch.testing.assert_close(kept, m * p + (1 - m) * q)
assert (1 / (1 / p + 1 / q))[1:].eq(0).all()

# %% [markdown]
# ## Only the overlap
#
# Sum that over the frame. The first map gives the same for every shift. The second gives what is still visible of it: a
# rectangle, read from a table of sums with four look-ups, whatever its size. Only the last term needs the pixels, and only
# those where both images are:
#
# $$
# v(\tau) = \sum_{i,j} a \;+\; \sum_{\text{visible}} b \;-\; 2 \sum_{\text{overlap}} \frac{1}{1/a + 1/\mathcal{T}(b, \tau)} .
# $$ (eq-overlap)
#
# Over all shifts the overlaps add up to $(hw)^2$, every pixel of one map with every pixel of the other. The authors' canvas is
# nine frames large, and for 32 × 32 images that is 35 times as many cells.

# %%
overlap = (h - every[:, 0].abs()) * (w - every[:, 1].abs())
assert overlap.sum() == (h * w) ** 2
assert len(every) * 9 * h * w / overlap.sum() > 34
torch.testing.assert_close(_search.visible(b[:, 0], some),
                           torch.stack([shift(b, t).sum((1, 2, 3)) for t in some], 1))

# %% [markdown]
# ## The whole batch at once
#
# All pairs search the same candidates. So a candidate needs one slice of all first maps and one of all second maps, and the
# batch is added, inverted and summed together. For a part of the shifts this is the library's form on a CPU.

# %%
torch.testing.assert_close(_search.slices(a[:, 0], b[:, 0], some), v)
show.source(_search.slices)

# %% [markdown]
# ## Every pair of pixels once
#
# For all shifts, slices visit the same pixels again and again in pieces. Better to take the rows in pairs: every column of
# one row against every column of the other is a small outer sum, with the batch as its last axis. Column $j$ meets column
# $l$ at the shift $j - l$, so that the sums of one shift lie along a diagonal.
#
# To sum diagonals without a loop, turn the second map round, put as many zeros behind each row as it is long, and read
# everything again in rows that are one shorter. Each row slips by one, and the diagonals stand upright:

# %%
columns = 4
meets = torch.arange(columns)[:, None] - torch.arange(columns - 1, -1, -1)  # the shift at which two columns meet
padded = torch.cat([meets.double(), torch.full((columns, columns), torch.nan)], 1)
upright = padded.flatten()[:-columns].view(columns, 2 * columns - 1)
for k, tau in enumerate(range(1 - columns, columns)):
    found = upright[:, k][~upright[:, k].isnan()]
    assert found.eq(tau).all() and len(found) == columns - abs(tau)
show.table([f"column {k}" for k in range(2 * columns - 1)],
           [["" if z != z else f"{z:+.0f}" for z in row] for row in upright.tolist()])

# %% [markdown]
# Every entry of a column is the same shift, as often as two rows of four overlap there. That is the library's form for most
# or all of the shifts.

# %%
all_of_them = _search.table(a[:, 0], b[:, 0], every)
torch.testing.assert_close(all_of_them[:5], by_masks(5, every))
assert _search.form(a[:, 0], some) is _search.slices and _search.form(a[:, 0], every) is _search.table
show.source(_search._whole_table)

# %% [markdown]
# ## On a GPU
#
# There a reciprocal is cheap and a launch is not, so one kernel does all: one program for a pair and a shift, which reads the
# overlap and nothing else. So far it has run in an interpreter alone, not on a GPU.
#
# It uses the same algebra the other way round. What the mix loses of $a$ in the overlap, and what it keeps of $b$, make
# $b\,(1 - 2M)$ at each pixel:
#
# $$
# v(\tau) = \sum_{i,j} a \;+\; \sum_{\text{overlap}} \mathcal{T}(b, \tau)\,\big(1 - 2 M^\tau\big) .
# $$ (eq-kernel)

# %%
moved = shift(b, some[0])
inside = shift(torch.ones_like(b), some[0])
torch.testing.assert_close(a.sum((1, 2, 3)) + (inside * moved * (1 - 2 * mask(a, moved))).sum((1, 2, 3)), v[:, 0])

# %% [markdown]
# ## What each step brought
#
# The forms in turn, in one run, on this machine: milliseconds for 100 pairs. The loops are timed on one pair, the masks on
# ten, and scaled up.

# %% mystnb={"image": {"alt": "Horizontal bars on a logarithmic scale: nested loops take thousands of milliseconds for one per cent of the shifts, masks about twenty, slices about two; for all shifts masks take thousands, slices about a hundred, the table about fifty."}}
# NBVAL_IGNORE_OUTPUT
torch.set_num_threads(1)
flat = a[:, 0], b[:, 0]
sides = {"three loops, 1 %": (lambda: by_loops(1), 1), "masks, 1 %": (lambda: by_masks(10), 10),
         "slices, 1 %": (lambda: _search.slices(*flat, some), pairs), "masks, all": (lambda: by_masks(1, every), 1),
         "slices, all": (lambda: _search.slices(*flat, every), pairs),
         "table, all": (lambda: _search.table(*flat, every), pairs)}
seconds = timing.interleaved({name: side for name, (side, _) in sides.items()}, rounds=3)
spent = {name: 1000 * pairs / sides[name][1] * timing.spread(found)["median"] for name, found in seconds.items()}
_, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
drawn = axis.barh(list(spent), list(spent.values()), log=True,
                  color=["#c98a00" if name.endswith("1 %") else show.COLOURS["sage"] for name in spent])
axis.bar_label(drawn, [f"{ms:,.0f}" if ms >= 10 else f"{ms:.1f}" for ms in spent.values()], padding=3)
axis.invert_yaxis()
axis.set(xlabel="milliseconds for 100 pairs", xlim=(1, 4 * max(spent.values())))
plt.show()

# %% [markdown]
# **What to see.** The step from loops to whole maps is the language. The steps after it are algebra, and they bring
# another factor of ten or so, and more where all shifts are searched.
#
# These are one machine's numbers. The book's own come from records, made by [the experiment](experiments/search_time.ipynb) with
# the search *and* the mixing on both sides, against a loop over images that is built as the authors' code is, on a canvas of
# three frames by three, and against a kinder loop that stays inside one frame:

# %% tags=["hide-input"]
record = records.timings(records.RESULTS, "search_time")[-1]


def row(r):
    over = r["ratio"]
    return [f"{100 * r['fraction']:g} %", {"library": "the library", "canvas": "loop, canvas", "frame": "loop, frame"}[r["name"]],
            1000 * r["seconds"]["median"], f"{over['median']:.0f} ({over['low']:.0f} to {over['high']:.0f})",
            f"{r['peak_bytes'] / 1e6:.0f}" if r.get("peak_bytes") else ""]


ours = [r for r in record["rows"] if r["size"] == 32]
slower = {r["fraction"]: r["ratio"]["median"] for r in ours if r["name"] == "canvas"}
assert slower[0.01] >= 25 and slower[0.1] >= 80 and slower[1.0] >= 500
assert all(r["peak_bytes"] < 15e6 for r in ours if r["name"] == "library")
took = {(r["name"], r["fraction"]): r["seconds"]["median"] for r in ours}
assert took["library", 1.0] < took["canvas", 0.01]  # all shifts, in less time than the loop takes for one per cent
show.table(["searched", "100 pairs, 32 × 32", "milliseconds", "times the library's", "search's memory, MB"], map(row, ours))

# %% [markdown]
# And in a whole training step, PreActResNet18 at full width with a batch of 32 on one core, against two vanilla steps: what two
# passes cost anyway. SAGE may come out below one, since it updates the weights once.

# %% tags=["hide-input"]
record = next(r for r in reversed(records.timings(records.RESULTS, "step_time")) if r["rows"][5]["name"] == "sage, reuse 0")
ratio = {r["name"]: r["ratio"] for r in record["rows"] if "ratio" in r}
assert ratio["sage"]["median"] <= 1.0 and ratio["sage, fraction 1"]["median"] <= 1.03 and ratio["sage, reuse 0"]["median"] <= 0.85
show.table(["step", "milliseconds", "over two vanilla steps"],
           [[r["name"], 1000 * r["seconds"]["median"],
             f"{r['ratio']['median']:.3f} ({r['ratio']['low']:.3f} to {r['ratio']['high']:.3f})"]
            for r in record["rows"] if "ratio" in r])

# %% [markdown]
# So an exhaustive search is free, for practical purposes. `reuse=0` saves one of the six parts of a step's arithmetic (a pass
# forward, a gradient by the layers' inputs and one by the weights, twice), because the clean pass then needs no gradient by
# the weights.
#
# `sage_merged` is an option that the paper does not have: one pass over the pictures mixed a step ago and the clean batch of this
# one. It saves no arithmetic. On a GPU it should save launches; that is not measured yet.
#
# ## What one per cent chooses
#
# If all shifts are free, why search a hundredth? Because the paper finds it *better* (its Table 3). The candidates are shared by
# the batch, so that a hundred pairs choose among the same 39. We ask three things of 20 such samples, for several $\lambda$: how
# many different shifts the 100 pairs take, how often *uniform* maps, which know nothing of the images, choose the same
# shift, and how often the maps of *other* images do.

# %%
uniform, other = torch.full_like(one, 1 / (h * w)), (one.roll(1, 0), two.roll(1, 0))
drawn = torch.Generator().manual_seed(seed)
samples = [torch.randperm(len(every), generator=drawn)[:len(some)] for _ in range(20)]


def chosen(first, second, lam):
    v = total_saliency(lam * first, (1 - lam) * second, every)
    return torch.stack([part[v[:, part].argmax(1)] for part in samples])  # (samples, pairs)


rows = []
for lam in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
    true = chosen(one, two, lam)
    distinct = sum(len(row.unique()) for row in true) / len(true)
    rows.append([f"{lam:.1f}", distinct, 100 * (chosen(uniform, uniform, lam) == true).float().mean().item(),
                 100 * (chosen(*other, lam) == true).float().mean().item()])
assert all(row[1] < 0.75 * len(some) for row in rows) and all(row[2] > 200 / len(some) for row in rows[:4])

# %%
# NBVAL_IGNORE_OUTPUT
show.table(["lambda", "different shifts", "uniform maps choose the same, %", "other images' maps do, %"], rows)

# %% mystnb={"image": {"alt": "Lines over lambda: the share of pairs for which uniform maps, and other images' maps, choose the same shift out of one per cent; and the number of different shifts."}}
# NBVAL_IGNORE_OUTPUT
_, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
at = [float(row[0]) for row in rows]
axes[0].plot(at, [row[1] for row in rows], "o-", color=show.COLOURS["sage"])
axes[0].set(xlabel="lambda", ylabel=f"different shifts of {pairs} pairs", ylim=(0, None))
axes[1].plot(at, [row[2] for row in rows], "o-", color="#5b6470", label="uniform maps")
axes[1].plot(at, [row[3] for row in rows], "s-", color=show.COLOURS["cutmix"], label="other images' maps")
axes[1].axhline(100 / len(some), color="#333333", linestyle=":", linewidth=1, label="by chance")
axes[1].set(xlabel="lambda", ylabel="same shift chosen, %", ylim=(0, 100))
axes[1].legend(fontsize=8, frameon=False)
plt.show()

# %% [markdown]
# **What to see.** A batch takes few different shifts. And the images have less to say in the choice than one would think: the smaller
# $\lambda$, the more the second image weighs, and the more it matters simply to keep it in the frame, which maps that know nothing can
# tell as well. As $\lambda$ comes near one half the images decide.
#
# Above one half uniform maps choose against the images. A pixel of the first alone is then worth more than one shared by both, so
# that the best they know is to push the second image out of the frame.
#
# Does saliency then earn its second pass? Only training can tell. `Sage(maps="uniform")`, `Sage(maps="other")` and
# `Sage(searched=False)` are the controls for that question; they are SAGE with one thing taken away each.
#
# ## Exercises

# %% [markdown]
# ### Exercise 8.1
#
# A shift can never be worth more than $\sum a + \sum_{\text{visible}} b$. How many of the shifts does this bound rule out, once the
# unmoved pair has been valued, before a single overlap is looked at?

# %% tags=["hide-cell"]
bound = a.sum((1, 2, 3))[:, None] + _search.visible(b[:, 0], every)
unmoved = total_saliency(a, b, torch.zeros(1, 2, dtype=torch.long))
assert (all_of_them <= bound + 1e-5).all() and (bound >= all_of_them.amax(1, keepdim=True) - 1e-5).any(1).all()
left = (bound >= unmoved).float().mean()
assert left < 0.3  # the rest cannot win: exact, and on a CPU it would pay for large images

# %% [markdown]
# ### Exercise 8.2
#
# The table of sums is kept in `float64` although the maps are `float32`. Move the second map so far that one pixel of it is
# left, at the end of the table. What would go wrong?

# %% tags=["hide-cell"]
corner, exact = torch.tensor([[1 - h, 1 - w]]), b[:, 0, -1, -1]
table = torch.nn.functional.pad(b[:, 0].cumsum(1).cumsum(2), (1, 0, 1, 0))
single = table[:, -1, -1] - table[:, -2, -1] - table[:, -1, -2] + table[:, -2, -2]
double = _search.visible(b[:, 0], corner)[:, 0]
# a small number as the difference of large ones: float32 has seven digits of the large ones
assert (single - exact).abs().max() > 1000 * (double - exact).abs().max()

# %% [markdown]
# ### Exercise 8.3
#
# `shift(b, tau)` of a batch moves every map by its own shift. Why does the search not simply call it once for each candidate?

# %% tags=["hide-cell"]
copied = torch.stack([shift(b, t).sum((1, 2, 3)) for t in some], 1)  # (pairs, candidates), after copying every map
torch.testing.assert_close(_search.visible(b[:, 0], some), copied)
# The copies hold 1,024 numbers for each candidate and pair. Slices are views, and the visible mass needs four look-ups.
