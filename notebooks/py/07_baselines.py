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
# # Baselines
#
# A method is only as good as what it is compared with. The paper compares SAGE with six ways to mix
# images. We reimplemented all six from their authors' code and fixed the bugs we found. Every
# method gets the same two images and, where it uses one, the same $\lambda$ (SAGE uses $u\lambda$
# with $u = 0.6$).
#
# At the end of this chapter you know what each method does in one sentence, what it costs, what its
# label means, and how much of the two objects it leaves visible.

# %% tags=["parameters"]
dataset = "shapes"   # "cifar10" draws the same pictures on photographs
root = ""
seed = 0
train_images = 1000
epochs = 12

# %% [markdown]
# Some of the methods look at the gradient of a network. Ours is trained for a short while, as in
# the chapters before.

# %%
import time

import torch
from IPython.display import display

from sagelib import catalog, datasets, methods, models, show, teaching
from sagelib.data.batches import Batches
from sagelib.losses import cross_entropy, one_hot
from sagelib.methods import (
    comixup,
    cutmix,
    guidedmixup,
    manifold_mixup,
    mixup,
    puzzlemix,
    rmix,
    sage,
    saliencymix,
    transmix,
)
from sagelib.rearrange import offsets
from sagelib.saliency import saliency, smooth
from sagelib.solvers.min_cut import energy, min_cut
from sagelib.train import Recipe, fit

train, test = catalog.load(datasets, dataset, root=root or None)
train = train.subset(train_images)
net = teaching.short_training(train, epochs, seed)
sample = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(3))[:100]]
x, y, pixels = sample.normalised(), one_hot(sample.labels, 10), sample.images

# %% [markdown]
# The saliency of each image is the norm of the gradient with respect to its pixels, from
# {eq}`eq-saliency`. It is computed once, in evaluation mode, and given to every method that wants
# one.

# %%
net.eval()
z = x.clone().requires_grad_()
s = saliency(torch.autograd.grad(cross_entropy(net(z), y), z)[0])
net.train()
assert s.shape == (100, 1, 32, 32)

# %% [markdown]
# ## One draw for all
#
# In `sagelib` every method is a pure function that is *given* its draws: the pairing, $\lambda$,
# the box, the grid. So we can draw once and hand the same $\lambda$ to all of them. The function
# below mixes a batch in every way there is.


# %%
def mixes(x, y, s, pair, lam, g, pixels, std=train.std, gamma=0.5):
    n, h, w = len(x), *x.shape[2:]
    centre = torch.rand(2, generator=g) * torch.tensor([h, w])
    prior = torch._sample_dirichlet(torch.full((n,), 2.0), generator=g)
    start = torch.randint(n, (n, 4, 4), generator=g)
    tau = offsets(h, w)[torch.randperm((2 * h - 1) * (2 * w - 1), generator=g)[:39]]
    boxes = saliencymix.box(saliencymix.fine_grained(pixels)[pair], lam)
    blocks = 2 ** torch.randint(1, 5, (), generator=g).item()
    spectral = smooth(guidedmixup.spectral_residual(x[:, :3]), 3.0, radius=3)
    percentiles = torch.rand(n, generator=g)
    return {"mixup": mixup.mix(x, y, pair, lam),
            "cutmix": cutmix.mix(x, y, pair, cutmix.box(h, w, torch.tensor(lam), centre)),
            "saliencymix": saliencymix.mix(x, y, pair, boxes),
            "puzzlemix": puzzlemix.mix(x, y, s, pair, lam, blocks, True, 0.5, std, gamma=gamma),
            "comixup": comixup.mix(x, y, s, prior, start, comixup.distances(s)),
            "guidedmixup": guidedmixup.mix(x, y, spectral, pair),
            "rmix": rmix.mix(x, y, s, pair, lam, percentiles, 4),
            "sage": sage.mix(x, y, smooth(s), pair, 0.6 * lam, tau)}


# %% [markdown]
# ## The paper's Figure 1
#
# Two images with the same $\lambda = 0.5$, and what each method makes of them.

# %% mystnb={"image": {"alt": "Ten images: two images, then the two mixed by Mixup, CutMix, SaliencyMix, Puzzle Mix, Co-Mixup, GuidedMixup, R-Mix and SAGE."}}
two = torch.tensor([0, (sample.labels != sample.labels[0]).int().argmax()])  # the first two of different classes
made = mixes(x[two], y[two], s[two], torch.tensor([1, 0]), 0.5, torch.Generator().manual_seed(5), pixels[two])
row = [x[two[0]], x[two[1]], *[m.x[0] for m in made.values()]]
names = ["image 1", "image 2", *made]
pictures = [train.pixels(r[None])[0] for r in row]
show.grid([pictures[:5], pictures[5:]], titles=[names[:5], names[5:]], size=1.0)

# %% [markdown]
# **What to see.** Mixup shows two ghosts. CutMix and SaliencyMix paste a box; the second aims it.
# Puzzle Mix, Co-Mixup and R-Mix are assembled from blocks, some of them part of each. GuidedMixup
# and SAGE blend pixel by pixel; SAGE alone has moved the second image as a whole.
#
# ## Manifold Mixup: the same blend, deeper in the network
#
# Mixup blends pixels. Manifold Mixup {cite:p}`verma2019manifold` draws a place for each batch, the
# input or what the first or second stage of the network gives, $g_k(x)$, and blends there:
#
# $$
# \begin{aligned}
# \tilde g_k &= \lambda\, g_k(x) + (1 - \lambda)\, g_k(x_\pi) \\
# \tilde y &= \lambda\, y + (1 - \lambda)\, y_\pi
# \end{aligned}
# $$ (eq-manifold)
#
# There is no picture of that. The library needs no change to the network either: it hooks what
# `net.stages` pass on. The slow way is to run the layers by hand.

# %%
pair = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
net.eval()
h = net.conv1(x)
h = net.stages[0](h)
h = 0.3 * h + 0.7 * h[pair]
for stage in net.stages[1:]:
    h = stage(h)
by_hand = net.linear(h.mean((2, 3)))
hooked = manifold_mixup.forward(net, x, pair, torch.tensor([1.0, 0.3, 1.0]))
torch.testing.assert_close(hooked, by_hand)
net.train()
assert not any(stage._forward_hooks for stage in net.stages)  # nothing is left behind

# %% [markdown]
# ## SaliencyMix: CutMix with an aim
#
# SaliencyMix {cite:p}`uddin2021saliencymix` puts CutMix's box around the most salient point of the
# partner. Its saliency needs no network: it asks how much a pixel differs from its surroundings, at
# six sizes {cite:p}`montabone2010`.
#
# The published code feeds that detector with *normalised floats*. It then takes single bytes of
# those floats for pixels, and the "peak" is close to noise. The exact masks of the built-in images
# say how often each peak hits the object.

# %%
def hit(maps):
    peak = maps.flatten(1).argmax(1)
    return sample.masks.flatten(1)[torch.arange(100), peak].float().mean().item()


if sample.masks is not None:
    aimed, published = (hit(m) for m in (saliencymix.fine_grained(pixels), saliencymix.fine_grained_of_floats(x)))
    chance = sample.masks.float().mean().item()
    print(f"peak on the object: {aimed:.0%} as meant, {published:.0%} as published, {chance:.0%} by chance")
    assert aimed > published

# %% [markdown]
# The library does what was meant, with a box for each image. `published=True` is the other thing:
# one box for the whole batch, from the first image's partner, at the noisy peak. Whoever reports
# "SaliencyMix" from that code reports CutMix with probability one half.
#
# ## Puzzle Mix: labels on a grid, then transport
#
# Puzzle Mix {cite:p}`kim2020puzzlemix` gives each block of an $n \times n$ grid a label
# $l \in \{0, \tfrac12, 1\}$, the share of the partner, by minimising
#
# $$
# \begin{aligned}
# E(l) = {} & \sum_i \big[(1 - l_i)\, \bar s_2(i) + l_i\, \bar s_1(i)\big] \\
#        & - \tfrac{\eta}{n^2} \sum_i \log p_\lambda(l_i) + \sum_{i \sim j} w_{ij}\, (l_i - l_j)^2
# \end{aligned}
# $$ (eq-puzzle)
#
# A block loses the saliency it does not show; the prior $p_\lambda$ is binomial; neighbours pay for
# unlike labels, less so where the two pictures meet without a seam. On a $2 \times 2$ grid one can
# try all $3^4$ labellings.

# %%
terms = puzzlemix.energy_terms(train.pixels(x), s, pair, 0.5, 2)
every = torch.cartesian_prod(*[torch.arange(3)] * 4).reshape(-1, 2, 2)
costs = torch.stack([energy(z.expand(100, 2, 2), *terms) for z in every], 1)
labels = min_cut(*terms)
torch.testing.assert_close(energy(labels, *terms), costs.amin(1))

# %% [markdown]
# `min_cut` is exact for every grid and the whole batch at once: the cost of two neighbours is
# convex in $l_i - l_j$, so the problem is one minimum cut {cite:p}`ishikawa2003`. The original code
# uses swap moves, which can stop short of the best labelling, as [the
# appendix](appendix_paper_and_code.ipynb) shows.
#
# The second step moves patches of each image to where its blocks are shown, as long as the saliency
# gained is worth the way.

# %% mystnb={"image": {"alt": "Four masks on grids of 2, 4, 8 and 16 blocks a side, and below them the images mixed with them."}}
made_at = [puzzlemix.mix(x[two], y[two], s[two], torch.tensor([1, 0]), 0.5, n, True, train.mean, train.std)
           for n in (2, 4, 8, 16)]
show.grid([[m.mask[0] for m in made_at], [train.pixels(m.x)[0] for m in made_at]], kind="mask",
          titles=[f"{n} x {n}" for n in (2, 4, 8, 16)], size=1.0)

# %% [markdown]
# **What to see.** Blue blocks show image 1, red ones image 2, grey ones both. A salient object
# makes its block its own; the finer the grid, the closer the labels follow it.
#
# ## Co-Mixup: a whole partition at once
#
# Co-Mixup {cite:p}`kim2021comixup` mixes up to twenty images together. Each output takes an input
# for each of $4 \times 4$ cells. It wants saliency shown, neighbours alike, and *different outputs
# made of different inputs*: an input that others use already becomes expensive. Four sweeps go over
# the outputs, and each output is solved exactly.

# %%
# NBVAL_IGNORE_OUTPUT
part = slice(0, 20)
g = torch.Generator().manual_seed(seed)
prior = torch._sample_dirichlet(torch.full((20,), 2.0), generator=g)
start = torch.randint(20, (20, 4, 4), generator=g)
together = comixup.mix(x[part], y[part], s[part], prior, start, comixup.distances(s[part]))
inputs = comixup.mix(x[part], torch.eye(20), s[part], prior, start, comixup.distances(s[part])).y
print(f"images in an output: {(inputs > 0).sum(1).float().mean():.2f} on average, {(inputs > 0).sum(1).max()} at most")
assert inputs.sum(0).max() < 4 and torch.allclose(inputs.sum(1), torch.ones(20))  # no input is everywhere

# %% mystnb={"image": {"alt": "Six outputs of Co-Mixup, each assembled from cells of several images."}}
show.grid([train.pixels(together.x)[:6]], size=1.0)

# %% [markdown]
# **What to see.** Most outputs are made of a few large pieces. The label counts their area alone.
#
# ## Outside the paper's tables
#
# GuidedMixup {cite:p}`kang2023guidedmixup` came after SAGE and is its closest relative: the mask is
# Equation 2, nothing is moved, and instead the *partners* are chosen so that salient regions do not
# collide. Three methods change one image and leave its label: **Cutout** paints a square,
# **RandAugment** applies random operations, **KeepAugment** does either but spares what is salient.
# GuidedMixup's pairing is one greedy cycle through the batch.

# %%
maps = smooth(guidedmixup.spectral_residual(x), 3.0, radius=3)
partner = guidedmixup.pairing(maps)
at, seen = 0, []
for _ in range(100):
    seen.append(at)
    at = partner[at].item()
assert sorted(seen) == list(range(100)) and at == 0  # each image once, and back to the first

# %% [markdown]
# ## R-Mix: a random threshold
#
# R-Mix {cite:p}`luu2022rmix` came after SAGE too, and optimises nothing. It averages the saliency
# of each image over the cells of a coarse grid, and draws a percentile for each image. The cells
# above this percentile of the image's own map are its *top* $T$. Where a cell is top in one image
# only, the mixed image shows that image; elsewhere the two are blended:
#
# $$
# m(p) = \begin{cases}
#   1 & p \in T,\ p \notin T_\pi \\
#   0 & p \notin T,\ p \in T_\pi \\
#   \lambda & \text{otherwise}
# \end{cases}
# $$ (eq-rmix)
#
# The label's share is the mean of $m$. We wrote this from a description of the method, not from its
# code; the file `methods/rmix.py` lists what the description leaves open, and how we read it. The
# slow way compares the two images cell by cell.

# %%
swap, percentile = torch.tensor([1, 0]), (0.5, 0.7)
worth = s[two].reshape(2, 4, 8, 4, 8).mean((2, 4))  # the mean of each cell of 8 x 8 pixels
limit = [worth[i].flatten().sort().values[int(percentile[i] * 15)] for i in range(2)]
by_hand = torch.empty(4, 4)
for row in range(4):
    for column in range(4):
        first, second = (worth[i, row, column] > limit[i] for i in range(2))
        by_hand[row, column] = 0.5 if first == second else float(first)
mixed = rmix.mix(x[two], y[two], s[two], swap, 0.5, torch.tensor(percentile), 4)
share = by_hand.mean()
shown_large = by_hand.repeat_interleave(8, 0).repeat_interleave(8, 1)
torch.testing.assert_close(mixed.mask[0, 0], shown_large)
torch.testing.assert_close(mixed.y[0], share * y[two[0]] + (1 - share) * y[two[1]])

# %% mystnb={"image": {"alt": "Four masks of R-Mix on a grid of 4 x 4 cells, for the percentiles 0.1 and 0.1, 0.5 and 0.5, 0.9 and 0.9, 0.1 and 0.9 of images 1 and 2, and below them the images mixed with them. In the first three most cells are a blend; in the last one most show image 1."}}
drawn = [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9), (0.1, 0.9)]
made_at = [rmix.mix(x[two], y[two], s[two], swap, 0.5, torch.tensor(q), 4) for q in drawn]
show.grid([[m.mask[0] for m in made_at], [train.pixels(m.x)[0] for m in made_at]], kind="mask",
          titles=[f"{first} and {second}" for first, second in drawn], size=1.2)

# %% [markdown]
# **What to see.** Blue cells show image 1, red ones image 2, grey ones a blend. Above the masks are
# the percentiles of images 1 and 2. If both are low, nearly all cells are top in both images; if
# both are high, nearly none is. Either way, most of the image is Mixup. With the same percentile
# $q$ for two maps that have nothing in common, a share of $2q(1 - q)$ of the cells shows only one
# image: at most one half. If one percentile is low and the other is high, most cells show only one
# image, as in CutMix. R-Mix trains with all of these.
#
# ## TransMix: the label asks the network
#
# CutMix's label is the area of the box, whatever it shows. A box of background gets the same share
# as a box with an object. TransMix {cite:p}`chen2022transmix` leaves CutMix's images as they are
# and changes the label. It trains a vision transformer {cite:p}`dosovitskiy2021`, which cuts the
# image into patches and adds a class token, from which the class is read. In the last block the
# class token attends to the patches, with weights $A_p$ that are a saliency map and cost next to
# nothing: the forward pass needs them anyway. With $M_p = 1$ where a patch is the image's own, the
# share of its label is
#
# $$
# \lambda = \frac{1}{2} \Big( \frac{\sum_p M_p A_p}{\sum_p A_p} + a \Big)
# $$ (eq-transmix)
#
# where $a$ is the area outside the box. The equation in the paper has the first half only; section
# 4.1 and the authors' code take the mean with the area, so all the paper's results come from that.
# It is `area=0.5`, and `area=0` is the equation. A patch counts as the partner's if its first pixel
# does. No gradient goes through the label.
#
# Below, a small transformer of our catalogue, `vit_tiny`, learns 200 images. A training step with
# TransMix has one pass: the attention comes with the logits. The slow way goes over the pixels.

# %%
few = train.subset(200)
torch.manual_seed(seed)
transformer = catalog.load(models, "vit_tiny", classes=10, width=8)
recipe = Recipe(epochs=30, optimizer="adamw", lr=1e-3, schedule="one_cycle")
fit(transformer, Batches(few, 50, generator=torch.Generator().manual_seed(seed)),
    catalog.load(methods, "vanilla"), recipe)
(top, left, bottom, right), n = (6, 10, 25, 30), 4
pair_of = few.normalised()[:n], one_hot(few.labels[:n], 10), torch.arange(n).roll(1)
pasted = cutmix.mix(*pair_of, (top, left, bottom, right))
logits, attention = transformer(pasted.x, with_attention=True)  # (B, K), (B, 1, 8, 8)
by_hand = []
for image in range(n):
    inside = outside = area = 0.0
    for row in range(32):
        for column in range(32):
            in_box = top <= row < bottom and left <= column < right
            area += (not in_box) / 32**2
            if row % 4 == 0 and column % 4 == 0:  # the first pixel of a patch
                weight = attention[image, 0, row // 4, column // 4].item()
                inside, outside = inside + in_box * weight, outside + (not in_box) * weight
    by_hand.append((outside / (inside + outside) + area) / 2)
mixed = transmix.mix(*pair_of, (top, left, bottom, right), attention)
torch.testing.assert_close(mixed.share, torch.tensor(by_hand))

# %% mystnb={"image": {"alt": "Four columns, each with an image, its partner, the mixed image with a box of the partner, and the attention of the transformer to the mixed image; above each column the image's share by area and by attention."}}
images = few.images[:n]
looked = transmix.share_of_attention(pasted.mask, attention)
torch.testing.assert_close(mixed.share, (pasted.share + looked) / 2)
heads = [f"{pasted.share[k]:.2f} | {looked[k]:.2f}" for k in range(n)]
show.grid([images, images[pair_of[2]], train.pixels(mixed.x), mixed.saliency[:, 0]], titles=heads,
          labels=["image", "partner", "mixed", "attention"], size=0.9)

# %% [markdown]
# **What to see.** Above each column are the image's share by area, which is the same for all, and
# by attention; TransMix takes the mean of the two. Bright patches are what the class token attends
# to. Where they are in the box, the partner gets more than its area. The network has trained for a
# few seconds on 200 images, so its attention is spread over objects and background, and the two
# shares differ little.
#
# Attention can be SAGE's saliency too: `sage_attention` takes the maps of one forward pass of the
# clean images where SAGE takes a gradient. That is cheaper, and leaves no gradient to reuse. SAGE
# itself needs no change: a transformer passes a gradient to its pixels as any network does.
#
# ## What each one needs
#
# The number of passes through the network while a batch is mixed is counted; what else it takes and
# what its label means stands in each method's file.

# %%
# NBVAL_IGNORE_OUTPUT
anywhere = catalog.suited(methods, models, "preactresnet18")  # without those that read attention


def passes(name):
    count, looked_at = [], net if name in anywhere else transformer
    hook = looked_at.register_forward_hook(lambda *_: count.append(1))
    try:
        catalog.load(methods, name).seed(0).mix(x[:8], y[:8], looked_at)
    finally:
        hook.remove()
    return len(count)


rows = []
for name in catalog.names(methods):
    method = catalog.load(methods, name)
    rows.append([name, passes(name), method.NEEDS, method.LABEL])
    assert passes(name) == any(word in method.NEEDS for word in ("gradient", "attention"))
show.table(["method", "passes to mix", "needs", "the label is"], rows)

# %% [markdown]
# ## How much of each object survives
#
# Two more channels ride along with the pictures: the object of image 1 and that of image 2.
# Whatever a method does to the pixels, it does to them. What is left of the objects in the mixed
# image can then simply be summed up. A label near one half leaves more of both to see, whatever the
# method; so each stands beside Mixup with *its* labels. (The extra channels are invisible to the
# seams of Puzzle Mix; `gamma` makes up for their part in the mean.)

# %% mystnb={"image": {"alt": "Bars: the visible share of the worse-off object for Mixup, CutMix, SaliencyMix, Puzzle Mix, Co-Mixup, GuidedMixup, R-Mix and SAGE."}} tags=["hide-input"]
if sample.masks is not None:
    g, worse, even = torch.Generator().manual_seed(seed), {}, {}
    for k in range(0, 100, 2):
        both, objects = slice(k, k + 2), sample.masks[k:k + 2].float()
        riders = torch.zeros(2, 2, 32, 32)
        riders[0, 0], riders[1, 1] = objects[0, 0], objects[1, 0]
        lam = torch.rand((), generator=g).item()
        made = mixes(torch.cat([x[both], riders], 1), torch.eye(2), s[both], torch.tensor([1, 0]), lam, g, pixels[both],
                     std=[*train.std, 0, 0], gamma=0.5 * 5 / 3)
        for name, m in made.items():
            left = m.x[0, 3:].sum((1, 2)) / objects.sum((1, 2, 3))
            worse.setdefault(name, []).append(left.min().item())
            even.setdefault(name, []).append(m.y[0].min().item())  # what Mixup leaves of it with this label
    survival, same = ({name: sum(v) / len(v) for name, v in found.items()} for found in (worse, even))
    assert set(sorted(survival, key=survival.get)[-2:]) == {"sage", "comixup"} and abs(same["mixup"] - survival["mixup"]) < 1e-5
    gain = {name: survival[name] - same[name] for name in survival}
    assert all(gain[m] > gain["rmix"] > 0 for m in ("sage", "comixup", "puzzlemix"))
    assert max(gain[m] for m in ("cutmix", "guidedmixup")) < 0.05
    show.bars(survival, "visible share of the\nworse-off object", limit=(0, 1), size=(6.6, 3.1))
    display(show.table(["method", "worse-off object visible", "Mixup with the same labels", "difference"],
                       [[m, survival[m], same[m], f"{gain[m]:+.2f}"] for m in survival]))

# %% [markdown]
# **What to see.** Boxes, aimed or not, often cover one object whole. GuidedMixup keeps a half of
# each because its labels are even, not because of where it blends. Puzzle Mix, Co-Mixup and SAGE
# keep more than their labels explain, by about as much: SAGE may put one object beside the other;
# the others, with two inputs, hand out blocks. R-Mix keeps a little more than its labels explain,
# without a solver, but less than these three. This is a property of the images, which are
# synthetic; whether it makes a better classifier is for the benchmark to say.
#
# ## What the mixing costs
#
# A batch of 100 images, saliency given, on one thread. The times are this machine's.

# %%
# NBVAL_IGNORE_OUTPUT
threads = torch.get_num_threads()
torch.set_num_threads(1)
g = torch.Generator().manual_seed(seed)
parts = [slice(k, k + 20) for k in range(0, 100, 20)]
priors, starts = torch._sample_dirichlet(torch.full((5, 20), 2.0), generator=g), torch.randint(20, (5, 20, 4, 4), generator=g)
far = torch.stack([comixup.distances(s[p]) for p in parts])
tau = offsets(32, 32)[torch.randperm(3969, generator=g)[:39]]
jobs = {"mixup": lambda: mixup.mix(x, y, pair, 0.5), "cutmix": lambda: cutmix.mix(x, y, pair, (8, 8, 24, 24)),
        "saliencymix": lambda: saliencymix.mix(x, y, pair, saliencymix.box(saliencymix.fine_grained(pixels)[pair], 0.5)),
        "guidedmixup": lambda: guidedmixup.mix(x, y, maps, guidedmixup.pairing(maps)),
        "rmix": lambda: rmix.mix(x, y, s, pair, 0.5, 0.5, 4),
        "puzzlemix": lambda: [puzzlemix.mix(x, y, s, pair, 0.5, n, True, train.mean, train.std) for n in (2, 4, 8, 16)],
        "comixup": lambda: comixup.mix(x, y, s, priors, starts, far), "sage": lambda: sage.mix(x, y, s, pair, 0.3, tau)}
spent = {}
for _ in range(3):
    for name, job in jobs.items():
        begin = time.perf_counter()
        job()
        spent.setdefault(name, []).append(1000 * (time.perf_counter() - begin) / (4 if name == "puzzlemix" else 1))
torch.set_num_threads(threads)
show.table(["method", "ms a batch, median of 3"], [[name, sorted(t)[1]] for name, t in spent.items()])

# %% [markdown]
# Puzzle Mix is the mean over its four grids. On a GPU all of this is to run there (no record of it
# yet): the minimum cut and the labelling as one kernel each, a program for each picture or
# partition. Other devices than a CPU or an NVIDIA GPU hand these two to the host.
#
# ## What would break it
#
# A natural mistake: to let SaliencyMix look for the peak in the image that *receives* the box
# instead of the one that gives it. The picture looks as plausible as before, and only a count
# tells.

# %%
if sample.masks is not None:
    right, wrong = [], []
    for boxes, kept in ((saliencymix.box(saliencymix.fine_grained(pixels)[pair], 0.8), right),
                        (saliencymix.box(saliencymix.fine_grained(pixels), 0.8), wrong)):
        m = saliencymix.mix(x, y, pair, boxes).mask
        kept.append((((1 - m) * sample.masks[pair]).sum() / sample.masks.sum()).item())
    print(f"of the pasted objects {right[0]:.0%} arrive; with the mistake {wrong[0]:.0%}")
    assert right[0] > wrong[0]

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 7.1
#
# Show that Puzzle Mix with `eta=0` and very smooth labels (`beta=100`) shows a single image or a
# single blend of two.

# %% tags=["hide-cell"]
flat = puzzlemix.mix(x, y, s, pair, 0.5, 4, False, beta=100.0, gamma=0.0, eta=0.0)
assert (flat.mask.flatten(1).std(1) < 1e-6).all()

# %% [markdown]
# ### Exercise 7.2
#
# GuidedMixup and SAGE share the mask. Make them agree: which $\lambda$ and which shifts turn SAGE
# into GuidedMixup?

# %% tags=["hide-cell"]
still = torch.zeros(1, 2, dtype=torch.long)
one, other = guidedmixup.mix(x, y, maps, pair), sage.mix(x, y, maps, pair, 0.5, still)
torch.testing.assert_close(one.x, other.x)
torch.testing.assert_close(one.y, other.y)

# %% [markdown]
# ### Exercise 7.3
#
# What does Manifold Mixup do with a network that has no `.stages`? Give one to torchvision's
# ResNet-18 in the catalogue, and read how little that takes.

# %% tags=["hide-cell"]
other = catalog.load(models, "resnet18", classes=10, width=8)
assert catalog.load(methods, "manifold_mixup").seed(0).loss(other, x[:10], y[:10]).isfinite()
try:
    catalog.load(methods, "manifold_mixup").seed(0).loss(torch.nn.Flatten(), x[:10], y[:10])
except ValueError as error:
    print(error)
