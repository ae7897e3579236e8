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
# # An exact search of all shifts
#
# For each pair of images SAGE looks for the best of 3,969 shifts, at every step of training. The
# paper searches a random 1 % of them, and the authors' code takes one image after another even for
# that. How much does an exact search of all have to cost?
#
# This chapter takes {eq}`eq-total` from three nested loops to the form that the library uses, one
# step of algebra at a time. Every form gives the same numbers, which an `assert` checks. At the end
# we time the forms, see what a search of all shifts adds to a training step on each machine with a
# record, and ask what a random 1 % really selects.

# %% tags=["parameters"]
seed = 0
dataset = "shapes"       # or "cifar10", …, with root, through papermill
root = ""
train_images = 1000
epochs = 12
pairs = 100              # images in the batch
results = ""             # folder of records; empty: the book's own

# %% tags=["setup"]
import matplotlib.pyplot as plt
import torch
from IPython.display import display

from sagelib import catalog, datasets, search, show, teaching
from sagelib.bench import records, timing
from sagelib.losses import one_hot
from sagelib.mask import mask
from sagelib.rearrange import offsets, shift, total_saliency
from sagelib.saliency import normalise, smooth

# %%
train, test = catalog.load(datasets, dataset, root=root or None)
train = train.subset(min(train_images, len(train)))
net = teaching.short_training(train, epochs, seed).eval()
x = test.subset(2 * pairs).normalised()
y = one_hot(test.subset(2 * pairs).labels, len(train.classes))
maps = normalise(smooth(teaching.saliency_maps(net, x, y)))
first_maps, second_maps = maps[:pairs], maps[pairs:]
a, b = 0.3 * first_maps, 0.7 * second_maps
h, w = a.shape[2:]
all_shifts = offsets(h, w)
draw = torch.Generator().manual_seed(seed)
sampled = all_shifts[torch.randperm(len(all_shifts), generator=draw)[:int(0.01 * len(all_shifts))]]

# %% [markdown]
# The maps come from a briefly trained network: 100 pairs, weighted as SAGE weights them, with
# $\lambda = 0.3$ for the first.
#
# ## Three nested loops
#
# This is the definition for one pair: loops over shifts, rows and columns compute the shifted map,
# the mask, and the saliency that the mix keeps.

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
    return torch.stack([nested(a[k, 0].tolist(), b[k, 0].tolist(), sampled.tolist()) for k in range(n)])


v = total_saliency(a, b, sampled)
torch.testing.assert_close(by_loops(2), v[:2])

# %% [markdown]
# ## Whole maps
#
# A tensor library shifts and masks a whole map at once, or all candidates of one pair at once. Most
# people would write it this way first, and the authors' code is built so: image after image, with a
# mask for every candidate.

# %%
def by_masks(n, tau=sampled):
    scores = []
    for k in range(n):
        first = a[k, 0].expand(len(tau), 1, h, w)
        moved = shift(b[k, 0].expand(len(tau), 1, h, w), tau)
        m = mask(first, moved)
        scores.append((m * first + (1 - m) * moved).sum((1, 2, 3)))
    return torch.stack(scores)


torch.testing.assert_close(by_masks(5), v[:5])

# %% [markdown]
# ## No mask
#
# At one pixel the mix keeps $(p^2 + q^2)/(p + q)$, which is $p + q - 2/(1/p + 1/q)$, as
# [chapter 4](04_rearrangement.ipynb) showed. The reciprocals $1/p$ and $1/q$ are computed once for
# all shifts. Each shift then needs only an addition, a reciprocal and a sum.
#
# A pixel without saliency needs no special case: $1/0$ is infinity, infinity plus anything is
# infinity, and its reciprocal is exactly zero.

# %%
p, q = torch.tensor([0.2, 0.0, 0.3, 0.0]), torch.tensor([0.5, 0.4, 0.0, 0.0])
m = mask(p, q)
kept = p + q - 2 / (1 / p + 1 / q)
torch.testing.assert_close(kept, m * p + (1 - m) * q)
assert (1 / (1 / p + 1 / q))[1:].eq(0).all()

# %% [markdown]
# ## Only the overlap
#
# Sum that over the frame. The first map contributes the same for every shift. The second
# contributes its visible part: a rectangle, whose sum takes four look-ups in a table of sums,
# whatever its size. Only the last term needs single pixels, and only those that both images cover:
#
# $$
# v(\tau) = \sum_{i,j} a \;+\; \sum_{\text{visible}} b \;-\; 2 \sum_{\text{overlap}} \frac{1}{1/a + 1/\mathcal{T}(b, \tau)} .
# $$ (eq-overlap)
#
# Over all shifts the overlaps add up to $(hw)^2$: each pixel of one map meets each pixel of the
# other once. The authors' canvas has the area of nine frames, and for 32 × 32 images that makes 35
# times as many pixels to compute.

# %%
overlap = (h - all_shifts[:, 0].abs()) * (w - all_shifts[:, 1].abs())
assert overlap.sum() == (h * w) ** 2
assert len(all_shifts) * 9 * h * w / overlap.sum() > 34
torch.testing.assert_close(search.visible(b[:, 0], sampled),
                           torch.stack([shift(b, tau).sum((1, 2, 3)) for tau in sampled], 1))

# %% [markdown]
# ## The whole batch at once
#
# All pairs search the same candidates. So a candidate needs one slice of all first maps and one of
# all second maps, and the whole batch is added, inverted and summed together. The library uses this
# form on a CPU for a part of the shifts.

# %%
torch.testing.assert_close(search.slices(a[:, 0], b[:, 0], sampled), v)
show.source(search.slices)

# %% [markdown]
# ## Every pair of pixels once
#
# For all shifts, slices visit the same pixels again and again in pieces. It is better to combine
# one row of each map at a time: all columns of the one against all columns of the other make a
# small outer sum, with the batch as its last axis. Column $j$ meets column $l$ at the shift
# $j - l$, so the terms of one shift are on a diagonal.
#
# To sum diagonals without a loop, reverse the second map, append as many zeros to each row as it is
# long, and reshape to rows that are one shorter. Each row slips by one, and the diagonals become
# columns:

# %%
columns = 4
meets = torch.arange(columns)[:, None] - torch.arange(columns - 1, -1, -1)  # the shift at which two columns meet
padded = torch.cat([meets.double(), torch.full((columns, columns), torch.nan)], 1)
upright = padded.flatten()[:-columns].view(columns, 2 * columns - 1)
for k, tau in enumerate(range(1 - columns, columns)):
    entries = upright[:, k][~upright[:, k].isnan()]
    assert entries.eq(tau).all() and len(entries) == columns - abs(tau)
show.table([f"column {k}" for k in range(2 * columns - 1)],
           [["" if z != z else f"{z:+.0f}" for z in row] for row in upright.tolist()])

# %% [markdown]
# All entries of a column have the same shift, and there are as many as two rows of four overlap
# there. The library uses this form for most or all of the shifts.

# %%
scores = search.table(a[:, 0], b[:, 0], all_shifts)
torch.testing.assert_close(scores[:5], by_masks(5, all_shifts))
assert search.choose_backend(a[:, 0], sampled) is search.slices
assert search.choose_backend(a[:, 0], all_shifts) is search.table
show.source(search.cpu._whole_table)

# %% [markdown]
# ## On a GPU
#
# A GPU computes reciprocals quickly, but each kernel launch takes time. So one Triton kernel does
# everything: one program for each pair and shift reads the overlap and nothing else. [Chapter
# 13](13_cost.ipynb) has step times with it on an NVIDIA H200.
#
# The kernel uses the same algebra the other way round. In the overlap the mix loses a part of $a$
# and keeps a part of $b$; together they change the sum by $b\,(1 - 2M)$ at each pixel:
#
# $$
# v(\tau) = \sum_{i,j} a \;+\; \sum_{\text{overlap}} \mathcal{T}(b, \tau)\,\big(1 - 2 M^\tau\big) .
# $$ (eq-kernel)

# %%
moved = shift(b, sampled[0])
inside = shift(torch.ones_like(b), sampled[0])
torch.testing.assert_close(a.sum((1, 2, 3)) + (inside * moved * (1 - 2 * mask(a, moved))).sum((1, 2, 3)), v[:, 0])

# %% [markdown]
# ## What each step brought
#
# We time all forms in turn, in one run, on this machine, in milliseconds for 100 pairs. The loops
# are timed on one pair, the masks on ten or one, and the times are scaled up.

# %% mystnb={"image": {"alt": "Horizontal bars on a logarithmic scale: the milliseconds of nested loops, masks and slices for one per cent of the shifts, and of masks, slices and the table for all shifts."}}
# NBVAL_IGNORE_OUTPUT
torch.set_num_threads(1)
flat = a[:, 0], b[:, 0]
sides = {"three loops, 1 %": (lambda: by_loops(1), 1), "masks, 1 %": (lambda: by_masks(10), 10),
         "slices, 1 %": (lambda: search.slices(*flat, sampled), pairs),
         "masks, all": (lambda: by_masks(1, all_shifts), 1),
         "slices, all": (lambda: search.slices(*flat, all_shifts), pairs),
         "table, all": (lambda: search.table(*flat, all_shifts), pairs)}
seconds = timing.interleaved({name: side for name, (side, _) in sides.items()}, rounds=3)
spent = {name: 1000 * pairs / sides[name][1] * timing.spread(taken)["median"] for name, taken in seconds.items()}
_, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
drawn = axis.barh(list(spent), list(spent.values()), log=True,
                  color=["#c98a00" if name.endswith("1 %") else show.COLOURS["sage"] for name in spent])
axis.bar_label(drawn, [f"{ms:,.0f}" if ms >= 10 else f"{ms:.1f}" for ms in spent.values()], padding=3)
axis.invert_yaxis()
axis.set(xlabel="milliseconds for 100 pairs", xlim=(min(spent.values()) / 2, 4 * max(spent.values())))
plt.show()
steps = [("three loops, 1 %", "masks, 1 %"), ("masks, 1 %", "slices, 1 %"), ("masks, all", "table, all")]
show.table(["from", "to", "times as fast"], [[slow, fast, spent[slow] / spent[fast]] for slow, fast in steps])

# %% [markdown]
# **What to see.** The first row of the table shows what a tensor library gains over Python's loops.
# The other two rows show what the algebra gains.
#
# These are one machine's numbers. The book's own come from records, made by [the
# experiment](experiments/search_time.ipynb). There each side searches *and* mixes. The library is
# timed against a loop over images that is built as the authors' code is, on a canvas of three by
# three frames, and against a loop that stays inside one frame:

# %% tags=["hide-input", "records", "nbval-ignore-output"]
SIDES = {"library": "the library", "canvas": "loop, canvas", "frame": "loop, frame"}
SEARCH = ["images", "searched", "side", "milliseconds", "times the library's", "search's memory, MB"]


def search_row(r):
    over, peak = r.get("ratio"), r.get("peak_bytes")
    return [f"{r['size']} × {r['size']}", f"{100 * r['fraction']:g} %", SIDES.get(r["name"], r["name"]),
            1000 * r["seconds"]["median"],
            "{median:.0f} ({low:.0f} to {high:.0f})".format(**over) if over else "",
            f"{peak / 1e6:.0f}" if peak else ""]


def search_reading(where, rows):
    """A sentence on 32 × 32 images: how long the library takes for all shifts, and the loop for 1 % and all."""
    ms = {(r["name"], r["fraction"]): 1000 * r["seconds"]["median"] for r in rows if r["size"] == 32}
    loop = [f"{ms['canvas', part]:,.0f} ms for {words}" for part, words in ((0.01, "1 %"), (1, "all"))
            if ("canvas", part) in ms]
    return [f"- {where}: the library searches all shifts of 32 × 32 images in {ms['library', 1]:,.0f} ms; "
            f"the loop on a canvas takes {' and '.join(loop)}."] if ("library", 1) in ms and loop else []


folder, lines = results or records.RESULTS, []
searches = [record for record in records.timings(folder, "search_time")
            if all("size" in row and "fraction" in row for row in record["rows"])]
for where, record in timing.by_setup(searches).items():
    caption = f"{record['parameters'].get('pairs', 'Some')} pairs on {where}."
    display(show.table(SEARCH, map(search_row, record["rows"]), caption))
    lines += search_reading(where, record["rows"])
show.Markdown("\n".join(lines) or "Search times of 32 × 32 images: not run.")

# %% [markdown]
# And in a whole training step? [The experiment](experiments/step_time.ipynb) compares a step with
# two vanilla steps, which make as many passes. There is a table for each network, machine and
# setting with a record of both searches. SAGE can come out below one, since it updates the weights
# once.

# %% tags=["hide-input", "records", "nbval-ignore-output"]
def step_reading(where, record):
    """A sentence: what a search of all shifts adds to a step, in both columns of the table."""
    names = "sage", "sage, fraction 1"
    narrow, wide = (timing.over_vanilla(record)[name] for name in names)
    seconds = {r["name"]: r["seconds"]["median"] for r in record["rows"] if "seconds" in r}
    in_time, in_ratio = (100 * after / before - 100 for before, after in (
        [seconds[name] for name in names], [narrow["median"], wide["median"]]))
    apart = wide["low"] > narrow["high"] or wide["high"] < narrow["low"]
    ranges = "are apart" if apart else "overlap, so this clock does not tell them apart"
    return (f"- {where}: a search of all shifts instead of 1 % changes the median of the "
            f"milliseconds by {in_time:+.1f} %, and the median of the ratio to two vanilla steps "
            f"by {in_ratio:+.1f} %; the ranges of the two ratios {ranges}.")


newest, lines = {}, []
for record in records.timings(folder, "step_time"):
    (model, width), timed = timing.timed_network(record), timing.over_vanilla(record)
    if timing.at_full_width(record) and {"sage", "sage, fraction 1"} <= timed.keys():
        newest[f"{model} of width {width} on {timing.setup(record)}"] = record
for where, record in newest.items():
    rows = [[r["name"], 1000 * r["seconds"]["median"],
             "{median:.3f} ({low:.3f} to {high:.3f})".format(**r["ratio"])]
            for r in record["rows"] if "ratio" in r]
    display(show.table(["step", "milliseconds", "over two vanilla steps"], rows, f"{where}."))
    lines.append(step_reading(where, record))
h200 = {r["step"]: r["milliseconds"] for r in timing.from_csv(records.MEASURED / "h200_steps.csv")
        if r["compiled"] == "yes"}
more = 100 * h200["sage, fraction 1"] / h200["sage"] - 100
show.Markdown("\n".join([*lines, "- preactresnet18 of width 64 on one NVIDIA H200, bf16, compiled, "
    f"outside a record: {more:+.1f} % in milliseconds ([chapter 13](13_cost.ipynb))."]))

# %% [markdown]
# **What to see.** How much an exhaustive search costs depends on the machine. A slow device can
# need so long for the two passes that a fast search disappears beside them. A fast device makes the
# passes short, and then the same search becomes visible. A number from the one says nothing about
# the other.
#
# `reuse=0` saves one of the six parts of a step's arithmetic (a forward pass, a gradient with
# respect to the layers' inputs and one with respect to the weights, each twice), because the clean
# pass then needs no gradient with respect to the weights.
#
# `sage_merged` is an option that the paper does not have: one pass over the images mixed one step
# ago and the clean batch of this step. It saves no arithmetic. On a GPU it should save launches; a
# table above shows its time where a record has it.
#
# ## What one per cent chooses
#
# If a machine can afford to search all shifts, why search a hundredth? Because the paper finds it
# *better* (its Table 3). The candidates are shared by the batch, so a hundred pairs choose among
# the same 39. We ask three questions about 20 such samples, for several $\lambda$. How many
# different shifts do the 100 pairs take? How often do *uniform* maps, which know nothing of the
# images, choose the same shift? And how often do the maps of *other* images?

# %%
uniform, other = torch.full_like(first_maps, 1 / (h * w)), (first_maps.roll(1, 0), second_maps.roll(1, 0))
draw = torch.Generator().manual_seed(seed)
samples = [torch.randperm(len(all_shifts), generator=draw)[:len(sampled)] for _ in range(20)]


def chosen(first, second, lam):
    v = total_saliency(lam * first, (1 - lam) * second, all_shifts)
    return torch.stack([part[v[:, part].argmax(1)] for part in samples])  # (samples, pairs)


rows = []
for lam in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
    true = chosen(first_maps, second_maps, lam)
    distinct = sum(len(row.unique()) for row in true) / len(true)
    rows.append([f"{lam:.1f}", distinct, 100 * (chosen(uniform, uniform, lam) == true).float().mean().item(),
                 100 * (chosen(*other, lam) == true).float().mean().item()])
assert all(row[1] < 0.75 * len(sampled) for row in rows) and all(row[2] > 200 / len(sampled) for row in rows[:4])

# %%
# NBVAL_IGNORE_OUTPUT
show.table(["lambda", "different shifts", "uniform maps choose the same, %", "other images' maps do, %"], rows)

# %% mystnb={"image": {"alt": "Lines over lambda. Above: the number of different shifts. Below: the share of pairs for which uniform maps, and other images' maps, choose the same shift out of one per cent."}}
# NBVAL_IGNORE_OUTPUT
_, axes = plt.subplots(2, 1, figsize=(5, 5), sharex=True, layout="constrained")
at = [float(row[0]) for row in rows]
axes[0].plot(at, [row[1] for row in rows], "o-", color=show.COLOURS["sage"])
axes[0].set(ylabel=f"different shifts of {pairs} pairs", ylim=(0, None))
axes[1].plot(at, [row[2] for row in rows], "o-", color="#5b6470", label="uniform maps")
axes[1].plot(at, [row[3] for row in rows], "s-", color=show.COLOURS["cutmix"], label="other images' maps")
axes[1].axhline(100 / len(sampled), color="#333333", linestyle=":", linewidth=1, label="by chance")
axes[1].set(xlabel="lambda", ylabel="same shift chosen, %", ylim=(0, 100))
axes[1].legend(fontsize=9, frameon=False)
plt.show()

# %% [markdown]
# **What to see.** A batch takes few different shifts. And the images influence the choice less than
# one would think. The smaller $\lambda$ is, the more the second image weighs, and the more it
# matters simply to keep it in the frame; uniform maps can tell that as well. As $\lambda$ comes
# near one half, the images decide.
#
# Above one half uniform maps choose against the images. A pixel that only the first image covers is
# then worth more than a pixel that both cover, so the best shift for uniform maps pushes the second
# image out of the frame.
#
# Is saliency then worth its extra pass? Only training can tell. The method `sage_controls` has the
# controls for that question, `maps="uniform"`, `maps="other"` and `searched=False`: each is SAGE
# with one component replaced.
#
# ## Exercises

# %% [markdown]
# ### Exercise 8.1
#
# A shift can never score more than $\sum a + \sum_{\text{visible}} b$. Once the pair without a
# shift has its score, how many of the shifts does this bound rule out before a single overlap is
# computed?

# %% tags=["hide-cell"]
bound = a.sum((1, 2, 3))[:, None] + search.visible(b[:, 0], all_shifts)
unmoved = total_saliency(a, b, torch.zeros(1, 2, dtype=torch.long))
assert (scores <= bound + 1e-5).all() and (bound >= scores.amax(1, keepdim=True) - 1e-5).any(1).all()
left = (bound >= unmoved).float().mean()
assert left < 0.3  # the rest cannot win, so the search stays exact without them

# %% [markdown]
# ### Exercise 8.2
#
# The table of sums is kept in `float64` although the maps are `float32`. Shift the second map so
# far that one pixel of it is left, at the end of the table. What would go wrong in `float32`?

# %% tags=["hide-cell"]
corner, exact = torch.tensor([[1 - h, 1 - w]]), b[:, 0, -1, -1]
table = torch.nn.functional.pad(b[:, 0].cumsum(1).cumsum(2), (1, 0, 1, 0))
single = table[:, -1, -1] - table[:, -2, -1] - table[:, -1, -2] + table[:, -2, -2]
double = search.visible(b[:, 0], corner)[:, 0]
# a small number as the difference of large ones: float32 has seven digits of the large ones
assert (single - exact).abs().max() > 1000 * (double - exact).abs().max()

# %% [markdown]
# ### Exercise 8.3
#
# `shift(b, tau)` of a batch shifts each map by its own shift. Why does the search not simply call
# it once for each candidate?

# %% tags=["hide-cell"]
copied = torch.stack([shift(b, tau).sum((1, 2, 3)) for tau in sampled], 1)  # (pairs, candidates), after copying each map
torch.testing.assert_close(search.visible(b[:, 0], sampled), copied)
# The copies hold 1,024 numbers for each candidate and pair. Slices are views, and the visible sum
# needs four look-ups.
