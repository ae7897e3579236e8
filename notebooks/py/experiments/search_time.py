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
# # Experiment: what the search costs
#
# How long does it take to find the best of all shifts for a batch of pairs, and to mix them? The
# library's search against two loops over the images, on the same maps and candidates, in turn, in
# one run:
#
# - **canvas**: built as the authors' code is. All candidates are sampled by an affine grid on a
#   canvas three times as wide, image after image, with the mask on the whole canvas; then each
#   image is moved and mixed by itself;
# - **frame**: a kinder loop. For each image all candidates at once, moved by index inside the
#   frame; the mixing after it is the library's.
#
# As it stands this is a small run. The numbers of the book come from
#
# ```
# papermill notebooks/experiments/search_time.ipynb OUT.ipynb -p pairs 100 -p rounds 9 -p results book/results
# ```
#
# Other sizes of images, or shares of the shifts, are lists and go through `-y`:
# `-y 'sizes: [32, 64]'`, `-y 'fractions: [0.1, 1.0]'`.
#
# On a GPU the same command measures the GPU. The loops take time and memory in proportion to the
# images, so at more than 1 % of the shifts they are timed on `loop_pairs` images and scaled up; the
# library always does all of them.

# %% tags=["parameters"]
pairs = 20               # images in the batch; the paper has 100
sizes = [32]             # height and width, pixels
fractions = [0.01, 0.1, 1.0]
loop_pairs = 2           # images that the loops are timed on where the fraction is above 0.01
rounds = 3               # each side has one turn a round
threads = 1              # of the CPU
device = ""              # "cpu", "cuda", …; empty: a GPU if there is one
seed = 0
results = "runs"         # the record goes to results/timings/

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from sagelib import show
from sagelib.bench import parameters, records, timing
from sagelib.losses import one_hot
from sagelib.methods import sage
from sagelib.rearrange import best_offset, offsets
from sagelib.saliency import normalise, smooth
from sagelib.search import choose_backend

given = parameters.checked(pairs=pairs, sizes=sizes, fractions=fractions, loop_pairs=loop_pairs, rounds=rounds,
                           threads=threads, device=device, seed=seed, results=results)
sizes, fractions = given["sizes"], given["fractions"]
device = device or ("cuda" if torch.cuda.is_available() else "cpu")
torch.set_num_threads(threads)

# %% [markdown]
# ## The two loops
#
# The canvas needs square images; a candidate is a translation of the grid, in units of half the
# canvas. The grids of the candidates are shared by all images, and timed by themselves.

# %%
def grid(tau, d):
    """Sampling grids of a 3d x 3d canvas, one for each shift (N, 2)."""
    theta = torch.eye(2, 3, device=tau.device).repeat(len(tau), 1, 1)
    theta[:, :, 2] = -2 * tau.flip(1) / (3 * d)
    return F.affine_grid(theta, (len(tau), 1, 3 * d, 3 * d), align_corners=False)


def sampled(z, grids, d):
    """z (C, d, d) on a canvas of zeros, moved by each grid: (N, C, 3d, 3d)."""
    wide = F.pad(z, (d, d, d, d)).expand(len(grids), -1, -1, -1)
    return F.grid_sample(wide, grids, mode="nearest", align_corners=False)


def canvas(x, y, s, pair, lam, tau, grids, first):
    """Search and mix the first images, one after another: pictures, labels, shifts."""
    d, s, out = x.shape[3], normalise(s), []
    inside = (..., slice(d, -d), slice(d, -d))
    for i in range(first):
        a, b = lam * s[i], (1 - lam) * s[pair[i]]
        wide, moved = F.pad(a, (d, d, d, d)), sampled(b, grids, d)[:, 0]
        share, moved = (wide / (wide + moved).clamp(min=1e-16))[inside], moved[inside]
        best = tau[(share * a + (1 - share) * moved).sum((1, 2)).argmax()][None]
        there = grid(best, d)
        share = a / (a + sampled(b, there, d)[0][inside]).clamp(min=1e-16)
        part = share.mean()
        out.append((share * x[i] + (1 - share) * sampled(x[pair[i]], there, d)[0][inside],
                    part * y[i] + (1 - part) * y[pair[i]], best[0]))
    return [torch.stack(z) for z in zip(*out, strict=True)]


# %%
def frame(a, b, tau):
    """Best shift of each pair (B, 2): moved by index inside the frame, image after image."""
    h, w = a.shape[2:]
    i, j = (torch.arange(n, device=a.device) - by[:, None] for n, by in ((h, tau[:, 0]), (w, tau[:, 1])))
    inside = ((i >= 0) & (i < h))[:, :, None] & ((j >= 0) & (j < w))[:, None]
    i, j, found = i.clamp(0, h - 1)[:, :, None], j.clamp(0, w - 1)[:, None], []
    for one, two in zip(a, b, strict=True):
        moved = two[0, i, j] * inside
        share = one / (one + moved).clamp(min=1e-16)
        found.append(tau[(share * one + (1 - share) * moved).sum((1, 2)).argmax()])
    return torch.stack(found)


# %% [markdown]
# ## Maps and candidates
#
# Smoothed maps with a few peaks, as saliency has them, and candidates drawn as SAGE draws them. All
# three agree: the same shift, or a gap below $10^{-6}$ of the total saliency, computed in
# `float64`; and the same pictures and labels.

# %%
g = torch.Generator().manual_seed(seed)


def made(size, fraction):
    s = smooth(torch.rand(pairs, 1, size, size, generator=g) ** 12, 1.5).to(device)
    tau, pair = offsets(size, size), torch.randperm(pairs, generator=g).to(device)
    tau = tau[torch.randperm(len(tau), generator=g)[:max(1, int(fraction * len(tau)))]].to(device)
    x = torch.randn(pairs, 3, size, size, generator=g).to(device)
    y = one_hot(torch.randint(10, (pairs,), generator=g), 10).to(device)
    return x, y, s, pair, tau


def gap(a, b, tau, best, other):
    """The greatest relative difference in total saliency between two choices of shifts, in float64."""
    def value(chosen):
        moved = torch.stack([sage.shift(z[None], t)[0] for z, t in zip(b.double(), chosen, strict=True)])
        m = sage.mask(a.double(), moved)
        return (m * a + (1 - m) * moved).sum((1, 2, 3))
    return ((value(best) - value(other)).abs() / value(best)).max().item()


for size in sizes:
    x, y, s, pair, tau = made(size, fractions[0])
    a, b = sage.weighted(x, y, s, pair, 0.3)
    mixed, (picture, label, best) = sage.mix(x, y, s, pair, 0.3, tau), canvas(x, y, s, pair, 0.3, tau, grid(tau, size), pairs)
    assert gap(a, b, tau, mixed.tau, best) < 1e-6 and gap(a, b, tau, mixed.tau, frame(a, b, tau)) < 1e-6
    same = (mixed.tau == best).all(1)
    torch.testing.assert_close((mixed.x[same], mixed.y[same]), (picture[same], label[same]), rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## The clock
#
# Search and mix, from raw maps to pictures and labels.

# %%
def sides(x, y, s, pair, tau, first):
    """Search and mix: by the library for the whole batch, by the loops for its first pairs."""
    grids = grid(tau, x.shape[3])

    def framed():
        a, b = sage.weighted(x, y, s, pair, 0.3)
        best = frame(a[:first], b[:first], tau)
        return sage.mix_at(x[:first], y[:first], a[:first], b[:first], pair[:first] % first, best)
    return {"library": lambda: sage.mix(x, y, s, pair, 0.3, tau), "grids": lambda: grid(tau, x.shape[3]),
            "canvas": lambda: canvas(x, y, s, pair, 0.3, tau, grids, first), "frame": framed}


rows = []
for size in sizes:
    for fraction in fractions:
        batch = made(size, fraction)
        loop = pairs if fraction <= 0.01 else min(pairs, loop_pairs)
        timed = timing.interleaved(sides(*batch, loop), rounds)
        maps = sage.weighted(*batch[:4], 0.3)
        grids = timed.pop("grids")
        timed["canvas"] = [once + each * pairs / loop for once, each in zip(grids, timed["canvas"], strict=True)]
        timed["frame"] = [each * pairs / loop for each in timed["frame"]]
        for name, seconds in timed.items():
            tau = batch[4]
            extra = {"peak_bytes": timing.peak_memory(
                         lambda maps=maps, tau=tau: best_offset(*maps, tau), device),
                     "form": choose_backend(maps[0][:, 0], tau).__name__,
                     } if name == "library" else {}
            rows.append({"name": name, "size": size, "fraction": fraction, "shifts": len(batch[4]),
                         "timed_pairs": pairs if name == "library" else loop, "seconds": timing.spread(seconds),
                         "ratio": timing.ratio(seconds, timed["library"]), **extra})

# %% [markdown]
# The ratio is taken within each round, then its median, least and greatest. Memory is what the
# search alone adds at its peak.

# %%
# NBVAL_IGNORE_OUTPUT
def summary(row):
    peak, times = row.get("peak_bytes"), row["ratio"]
    return [row["size"], f"{100 * row['fraction']:g} %", row["name"] + (f" ({row['form']})" if "form" in row else ""),
            f"{1000 * row['seconds']['median']:.4g}", f"{times['median']:.3g} ({times['low']:.3g} to {times['high']:.3g})",
            "" if peak is None else f"{peak / 1e6:.1f}"]


show.table(["size", "searched", "side", "milliseconds", "times the library's", "peak, MB"],
           [summary(row) for row in rows])

# %% mystnb={"image": {"alt": "Milliseconds for search and mix against the part of the shifts that is searched, logarithmic on both axes: two loops far above the library's line."}}
# NBVAL_IGNORE_OUTPUT
fig, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for name, colour in (("canvas", "#d55e00"), ("frame", "#c98a00"), ("library", "#009e73")):
    mine = [row for row in rows if row["name"] == name and row["size"] == sizes[0]]
    axis.loglog([100 * row["fraction"] for row in mine], [1000 * row["seconds"]["median"] for row in mine], "o-",
                color=colour, label=name)
axis.set(xlabel="shifts searched, %", ylabel=f"ms for {pairs} pairs, {sizes[0]} x {sizes[0]}")
axis.grid(alpha=0.3)
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The record

# %%
# NBVAL_IGNORE_OUTPUT
record = records.make_timing(what="search_time", rows=rows, parameters=parameters.recorded(given), device=device)
written = records.write(record, results)
assert records.read(written) == record
show.table(["record", "hardware"], [[written, record["hardware"]["gpu"] or record["hardware"]["cpu"]]])
