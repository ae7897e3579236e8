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
# # SAGE: Algorithm 1
#
# Saliency, mask and rearrangement are on the table. This chapter puts them together into the method
# of the paper, takes one training step with it by hand, and settles what the paper's letter $\eta$
# means.
#
# At its end you can use SAGE in a training loop of your own, and switch off each of its parts to
# see what it does.

# %% tags=["parameters"]
dataset = "shapes"  # or cifar10, cifar100, folder
root = None         # where the data set is; the shapes are built in
seed = 0
train_images = 1000
epochs = 12

# %% [markdown]
# The network of this chapter is trained for a short while, as before, so that its saliency means
# something.

# %%
from copy import deepcopy

import torch

from sagelib import catalog, methods, show, teaching
from sagelib.catalog import load
from sagelib.losses import bce, one_hot
from sagelib.mask import mask
from sagelib.method import SaliencyGuided
from sagelib.methods import comixup, cutmix, mixup, puzzlemix, sage, saliencymix
from sagelib.rearrange import offsets, shift, total_saliency
from sagelib.saliency import normalise, saliency, smooth

train, test = teaching.small_sets(dataset, root, train_images)
as_told = dataset == "shapes"  # what the text says of images it says of shapes
net = teaching.short_training(train, epochs, seed)
x, y = train.normalised()[:50], one_hot(train.labels[:50], len(train.classes))

# %% [markdown]
# ## The algorithm
#
# For each image $x_1$ of a batch, with a partner $x_2$ from the same batch, the current network
# $f_\theta$, its loss $\ell$, and a random $\lambda$ {cite:p}`ma2022sage`:
#
# $$
# \begin{aligned}
# 1.\quad & s_k = \big\| \nabla_x\, \ell(f_\theta(x_k), y_k) \big\|_2 , \quad k = 1, 2 \\
# 2.\quad & \tilde s_1 = \lambda\, \mathrm{smooth}(s_1), \qquad \tilde s_2 = (1 - \lambda)\, \mathrm{smooth}(s_2) \\
# 3.\quad & \tau^* = \arg\max_{\tau} v(\tau) \\
# 4.\quad & M = \tilde s_1 / \big(\tilde s_1 + \mathcal{T}(\tilde s_2, \tau^*) + \zeta\big) \\
# 5.\quad & \gamma = \mathrm{mean}(M) \\
# 6.\quad & x' = M \odot x_1 + (1 - M) \odot \mathcal{T}(x_2, \tau^*) \\
# 7.\quad & y' = \gamma\, y_1 + (1 - \gamma)\, y_2
# \end{aligned}
# $$ (eq-algorithm)
#
# Two things are not in these lines but in the text and the authors' code: each smoothed map is
# scaled to sum to one before line 2 (so that from here on $\tilde s$ has its weight in it), and
# line 3 searches a random 1 % of the shifts, drawn anew for each batch.
#
# $\lambda$ is uniform between 0 and $u$. The paper found that a $\lambda$ above 0.6 leaves too
# little of the second image, and sets $u$ to 0.5, 0.6 or 0.7, by data set and network.
#
# ## One batch by hand
#
# We draw the pairing, $\lambda$ and the candidates ourselves, and follow the seven lines with the
# pieces of the last three chapters.

# %%
g = torch.Generator().manual_seed(seed)
pair = torch.randperm(50, generator=g)
lam = 0.6 * torch.rand((), generator=g)
tau = offsets(*x.shape[2:])  # (3969, 2) for 32 x 32 pixels
tau = tau[torch.randperm(len(tau), generator=g)[:len(tau) // 100]]

z = x.clone().requires_grad_()
grad, = torch.autograd.grad(bce(net(z), y), z)                       # 1
s = smooth(saliency(grad))
a, b = lam * normalise(s), (1 - lam) * normalise(s)[pair]            # 2
best = tau[total_saliency(a, b, tau).argmax(1)]                      # 3
m = mask(a, shift(b, best))                                          # 4
gamma = m.mean((1, 2, 3))[:, None]                                   # 5
mixed_x = m * x + (1 - m) * shift(x[pair], best)                     # 6
mixed_y = gamma * y + (1 - gamma) * y[pair]                          # 7

# %% [markdown]
# The library's `sage.mix` is a pure function of the same draws, and gives the same images and
# labels. Its comments name the lines.

# %%
mixed = sage.mix(x, y, s, pair, lam, tau)
torch.testing.assert_close(mixed.x, mixed_x)
torch.testing.assert_close(mixed.y, mixed_y)
assert torch.equal(mixed.tau, best)
show.source(sage.mix, sage.mix_at, sage.mix_by_mask)

# %% [markdown]
# ## The paper's Figure 2
#
# The whole way of two pairs, from two images to one.

# %% mystnb={"image": {"alt": "Two rows of pictures: two images, their saliency maps, the mask in blue and red with the second image moved, and the mixed image with both objects in it."}} tags=["hide-input"]
def figure_2(data, x, s, mixed, chosen, **options):
    """Two images, their maps, the mask and the mix, for the chosen pairs of a mixed batch."""
    rows = [[*map(data.pixels, (x[n], x[mixed.pair[n]])), s[n], s[mixed.pair[n]], mixed.mask[n],
             data.pixels(mixed.x[n])] for n in chosen]
    titles = ["image 1", "image 2", "saliency 1", "saliency 2", "mask", "mix"]
    show.grid(rows, titles, kind=["mask" if t == "mask" else "saliency" for t in titles], **options)


nice = total_saliency(a, b, tau).amax(1).argsort(descending=True)[:2]
figure_2(test, x, s, mixed, nice, size=1.1)

# %% [markdown]
# **What to see.** The mask shows where the second image was moved to: outside it all is blue,
# because only image 1 is there. Inside the moved frame the transitions are soft, not cut as in
# CutMix nor two ghosts as in Mixup; at the frame's edge a seam can remain.
#
# The same on [photographs](02_saliency.ipynb), with a network trained to recognise them and
# $\lambda = 0.5$. Of 60 pairs the figure has the two in which the worse-off object stays most
# visible, without the rocket, whose map is mostly sky.

# %% mystnb={"image": {"alt": "Two rows of photographs: a flower and an astronaut, a cup of coffee and a pagoda, each with the saliency maps, the mask with the second image moved, and the mix, in which both objects stand side by side."}} tags=["hide-input"]
photos, photo_net = teaching.photographs(seed=seed)
rocket = photos.classes.index("rocket")
x_photo, y_photo = photos.normalised()[:60], one_hot(photos.labels[:60], len(photos.classes))
raw = teaching.saliency_maps(photo_net, x_photo, y_photo)
s_photo, g = smooth(raw, 3), torch.Generator().manual_seed(seed)
partners = torch.randperm(60, generator=g)
tau_photo = offsets(96, 96)  # (36481, 2)
some = tau_photo[torch.randperm(len(tau_photo), generator=g)[:len(tau_photo) // 100]]
half = sage.mix(x_photo, y_photo, s_photo, partners, 0.5, some)
outlined = photos.masks[:60].float()
seen = torch.stack([half.mask * outlined, (1 - half.mask) * shift(outlined[partners], half.tau)])
whole = torch.stack([outlined, outlined[partners]])
kept = (seen.sum((2, 3, 4)) / whole.sum((2, 3, 4))).amin(0)  # (60,), the worse-off object
kept[(photos.labels[:60] == rocket) | (photos.labels[partners] == rocket)] = 0
kept[photos.labels[:60] == photos.labels[partners]] = 0
chosen = kept.argsort(descending=True)[:2]
figure_2(photos, x_photo, s_photo, half, chosen, size=1.2, jpeg=True)

# %% [markdown]
# **What to see.** The astronaut was moved aside, and so was the pagoda, and the objects stand next
# to each other. Where they still overlap the mask decides pixel by pixel.
#
# ## The paper's Figure 1
#
# What do six methods make of the first of these pairs? All have $\lambda = 0.5$. [Chapter
# 7](07_baselines.ipynb) explains the other methods.

# %% mystnb={"image": {"alt": "Eight photographs: a flower, an astronaut, and the two mixed by Mixup into two ghosts, by CutMix and SaliencyMix with a pasted box, by Puzzle Mix and Co-Mixup in blocks, and by SAGE side by side."}} tags=["hide-input"]
two, swap = torch.stack([chosen[0], partners[chosen[0]]]), torch.tensor([1, 0])
x_two, y_two, raw_two, lam = x_photo[two], y_photo[two], raw[two], torch.tensor(0.5)
random_box = cutmix.box(96, 96, lam, torch.tensor([40.0, 60.0]))
salient_box = saliencymix.box(saliencymix.fine_grained(photos.images[two])[swap], lam)
start = torch.randint(2, (2, 4, 4), generator=g)
made = {"Mixup": mixup.mix(x_two, y_two, swap, lam),
        "CutMix": cutmix.mix(x_two, y_two, swap, random_box),
        "SaliencyMix": saliencymix.mix(x_two, y_two, swap, salient_box),
        "Puzzle Mix": puzzlemix.mix(x_two, y_two, raw_two, swap, 0.5, 16, True, 0.5, photos.std,
                                    gamma=0.5),
        "Co-Mixup": comixup.mix(x_two, y_two, raw_two, torch.full((2,), 0.5), start,
                                comixup.distances(raw_two)),
        "SAGE": sage.mix(x_two, y_two, s_photo[two], swap, 0.5, some)}
images = [photos.pixels(z) for z in (*x_two, *(m.x[0] for m in made.values()))]
names = ["image 1", "image 2", *made]
show.grid([images[:4], images[4:]], [names[:4], names[4:]], size=1.4, jpeg=True)

# %% [markdown]
# **What to see.** Mixup makes two ghosts. The boxes of CutMix and SaliencyMix cover part of the
# flower, and Puzzle Mix and Co-Mixup cut both images into blocks. SAGE moves the astronaut as a
# whole and blends her in where the two meet.
#
# ## The gradient is not thrown away
#
# Line 1 needs a forward and a backward pass on the clean batch. Such a pass also yields the
# gradient with respect to the weights, $g_{\text{clean}}$. Other saliency methods discard it, says
# the paper (Puzzle Mix does; Co-Mixup's code [keeps it](13_cost.ipynb)). SAGE uses it, together
# with the gradient of the mixed batch:
#
# $$
# g = r\, g_{\text{clean}} + (1 - r)\, g_{\text{mixed}}
# $$ (eq-reuse)
#
# We call the weight $r$ `reuse`: the share of the clean gradient. A weighted sum of two losses has
# this gradient, so the library's training step is a loss like any other. It returns the sum, and
# your loop calls `.backward()`:

# %%
show.source(sage.Sage.loss, SaliencyGuided.clean_pass)

# %% [markdown]
# Line 1 is `clean_pass`, and inside it `loss_with_stored_grad`. That function makes one forward and
# one backward pass on the clean batch, and returns two things: the clean loss, and its
# gradient with respect to the images, which becomes the saliency map. The same backward pass has
# computed the gradient with respect to the weights. That one is *stored* in the returned loss; no
# `.grad` has changed yet.
#
# Lines 2 to 7 are `mix_with_saliency`: it draws the partners, $\lambda$ and the candidates, and
# calls `sage.mix`. The last line is Section 3.4 of the paper, the weighted sum.
#
# When you call `.backward()` on the sum, PyTorch computes the mixed batch's gradient as usual, and
# the stored one is added to it. The clean pass is not repeated. Each `.grad` then holds
# $r\, g_{\text{clean}} + (1 - r)\, g_{\text{mixed}}$. To check this, we take the mixed batch of the
# step from `method.last` and compute both gradients by hand.

# %%
method = sage.Sage(reuse=0.3).seed(7)
one = deepcopy(net)
one.zero_grad()
loss = method.loss(one, x, y)
assert all(p.grad is None for p in one.parameters())  # the clean gradient is inside the loss
loss.backward()

step, two, z = method.last, deepcopy(net), x.clone().requires_grad_()
*clean, grad = torch.autograd.grad(bce(two(z), y), [*two.parameters(), z])
from_mixed = torch.autograd.grad(bce(two(step.x), step.y), list(two.parameters()))
torch.testing.assert_close(normalise(step.saliency), normalise(saliency(grad)), rtol=1e-3,
                           atol=1e-6)
for p, c, q in zip(one.parameters(), clean, from_mixed, strict=True):
    torch.testing.assert_close(p.grad, 0.3 * c + 0.7 * q, rtol=1e-3, atol=1e-6)

# %% [markdown]
# There are two ways to use a method, then. `mix` returns images and labels and changes nothing
# else. `loss` is one training step of it; for SAGE it includes the clean gradient, which `mix`
# alone cannot give.
#
# ## What eta means
#
# The paper writes $g = \eta\, g_s + (1 - \eta)\, g_a$, with $g_s$ from the clean and $g_a$ from the
# mixed images. Read like that, $\eta = 1$ would be plain vanilla training. But its Table 7 says
# that reusing the gradient is what happens for $\eta \ne 1$, and the value at $\eta = 1$ is far
# above vanilla.
#
# The authors' code multiplies the loss of the *mixed* batch by $\eta$ and that of the clean batch
# by $1 - \eta$. Only this reading fits the table, and it is the one used here.

# %%
paper = {0.5: (96.65, 79.36), 0.7: (96.95, 79.91), 1.0: (96.58, 79.24)}  # Table 7, left
vanilla = (95.07, 76.8)  # Table 1
assert all(value > base + 1 for value, base in zip(paper[1.0], vanilla, strict=True))
show.table(["eta in the tables", "reuse here", "CIFAR-10, paper", "CIFAR-100, paper"],
           [[eta, round(1 - eta, 1), *values] for eta, values in paper.items()] + [["vanilla", "-", *vanilla]])

# %% [markdown]
# The settings that the paper tuned stand beside the method and are found by name. The pair that is
# not in the paper, WRN16-8, comes from the authors' README.

# %%
show.table(["data set, network", "u", "reuse"],
           [[", ".join(key), options["u"], options["reuse"]] for key, options in sage.SETTINGS["paper"].items()])

# %%
options = catalog.settings(methods, "sage", "paper", "cifar10", "preactresnet18")
print(load(methods, "sage", **options))
for wrong in (dict(eta=0.7), dict(reuse=1.7)):
    try:
        load(methods, "sage", **wrong)
    except ValueError as error:
        print(error)

# %% [markdown]
# ## Two passes, two updates of BatchNorm
#
# `loss` sends two batches through the network in training mode, so BatchNorm's running statistics
# are updated twice, once with clean and once with mixed images. The authors' code does the same.
# The option `bn` changes what happens in the saliency pass:
#
# - `"train"`, the default, normalises with the statistics of the batch and updates the running
#   ones;
# - `"batch"` also normalises with the statistics of the batch, but updates nothing;
# - `"eval"` normalises with the running statistics, and updates nothing.
#
# `mix` alone never updates them: it changes nothing but what it returns.

# %%
counts = {}
for mode in ("train", "eval", "batch"):
    copy = deepcopy(net).train()
    norm = copy.layer1[0].bn1
    before = norm.num_batches_tracked.item()
    sage.Sage(bn=mode).seed(0).mix(x, y, copy)
    by_mix = norm.num_batches_tracked.item() - before
    sage.Sage(bn=mode).seed(0).loss(copy, x, y)
    counts[mode] = by_mix, norm.num_batches_tracked.item() - before
assert counts == {"train": (0, 2), "eval": (0, 1), "batch": (0, 1)}  # by `mix`, and by `loss`

# %% [markdown]
# ## Without its parts
#
# The paper takes SAGE apart in two ways. *Without rearrangement* (w/o OR) nothing is moved.
# *Without saliency-guided mixing* (w/o SM) the moved image is simply laid over the first; there is
# no published code for this one, and it is our reading of the sentence that "one image region" is
# replaced "with the other image". [Ablations](12_ablations.ipynb) looks closer, and has three more
# readings.

# %% mystnb={"image": {"alt": "Five rows of mixed images of the same pairs: the images, their partners, SAGE with two clear objects, SAGE without rearrangement with overlapping objects, and without guided mixing with a hard rectangle."}}
still = torch.zeros(1, 2, dtype=torch.long)
pair, s = step.pair, smooth(step.saliency)
variants = {"SAGE": sage.mix(x, y, s, pair, 0.5, tau), "w/o OR": sage.mix(x, y, s, pair, 0.5, still),
            "w/o SM": sage.mix(x, y, s, pair, 0.5, tau, guided=False)}
rows = [z[1:4] for z in (x, x[pair], *[v.x for v in variants.values()])]
show.grid([test.pixels(r) for r in rows], labels=["image", "partner", *variants], size=0.7)

# %% [markdown]
# **What to see.** SAGE and its version without guided mixing move the partner alike, but the latter
# covers whatever is under it. Without rearrangement two objects in the same place become one blur.
#
# ## How much of each object survives
#
# The exact masks give the sum of this chapter in one picture: the visible share of the worse-off
# object, for every method so far, on the same images. A label near one half leaves more of both
# objects to see, whatever the method; so there is a control, Mixup given the labels of SAGE.

# %% mystnb={"image": {"alt": "Bars with the visible share of the worse-off object for Mixup, CutMix, SAGE, Mixup with SAGE's labels, SAGE without rearrangement, and SAGE without guided mixing; SAGE's bar is the highest."}} tags=["hide-input"]
objects = teaching.object_masks(train)[:50]
makers = {name: load(methods, name) for name in ("mixup", "cutmix", "sage")}
makers |= {"w/o OR": sage.Sage(rearranged=False), "w/o SM": sage.Sage(guided=False)}
kept = {}
for name, maker in makers.items():
    worse, even, maker = [], [], maker.seed(seed)
    for _ in range(20):
        made = maker.mix(x, y, deepcopy(net))
        moved = objects[made.pair] if made.tau is None else shift(objects[made.pair], made.tau)
        first = (made.mask * objects).sum((1, 2, 3)) / objects.sum((1, 2, 3))
        second = ((1 - made.mask) * moved).sum((1, 2, 3)) / objects[made.pair].sum((1, 2, 3))
        others = made.pair != torch.arange(50)
        worse.append(torch.minimum(first, second)[others].mean().item())
        even.append(torch.minimum(made.share, 1 - made.share).expand(50)[others].mean().item())  # Mixup with these labels
    kept[name] = sum(worse) / len(worse)
    if name == "sage":
        kept["mixup,\nSAGE's labels"] = sum(even) / len(even)
less = ("mixup", "cutmix", "mixup,\nSAGE's labels", "w/o SM")
assert not as_told or kept["sage"] > max(kept[name] for name in less)
show.bars(kept, "visible share of the\nworse-off object", limit=(0, 1))

# %% [markdown]
# **What to see.** This is the claim of the method, measured on what it is about: both objects stay
# visible, more so than equal labels explain. It is not yet a claim about accuracy. [The next
# chapter](06_training.ipynb) trains.
#
# ## Exercises

# %% [markdown]
# ### Exercise 5.1
#
# `reuse=0` is SAGE without the clean gradient. Which work does a step save then, and which part of
# the step is it?
#
# *Hint.* A forward pass, the gradient with respect to the layers' inputs and the gradient with
# respect to the weights take about one unit each. `sagelib.bench.timing.operations` counts the
# operations of a function, forward and backward.

# %% tags=["hide-cell"]
# Saliency still needs the gradient with respect to the images, and so to the inputs of all layers.
# The gradient with respect to the weights is not computed. The clean pass takes two units instead
# of three, and the step five instead of six.
from sagelib.bench import timing


def work(reuse):
    method, copy = sage.Sage(reuse=reuse).seed(0), deepcopy(net)
    return sum(timing.operations(lambda: method.loss(copy, x, y).backward()))


assert abs(work(0) / work(0.3) - 5 / 6) < 0.005

# %% [markdown]
# ### Exercise 5.2
#
# What becomes of SAGE when `u` is 0? Look at the mask and the label.

# %% tags=["hide-cell"]
made = sage.Sage(u=0).seed(0).mix(x, y, deepcopy(net))
alone = shift(torch.ones_like(s), made.tau)
assert (made.mask[alone == 1] < 1e-6).all()  # lambda is 0: the partner owns every pixel it covers
assert (made.mask[alone == 0] > 0.99).all()  # the rest is the image's own, however little saliency it has

# %% [markdown]
# ### Exercise 5.3
#
# Read `loss_with_stored_grad` in `stored_grad.py`: why are the images detached before they require
# a gradient? Suppose the images are themselves the result of a computation, `gain * x`. Which of
# the two losses sends a gradient to `gain`?
#
# *Hint.* Is the mask a constant? Are the mixed images?

# %% tags=["hide-cell"]
# Detached images are a new leaf. The caller's tensor is not changed, and the clean pass stops there
# instead of going on into the computation that made the images. The mask comes from that gradient,
# so it is a constant. The mixed images, however, are a weighted sum of `gain * x`. So only the
# mixed loss sends a gradient to `gain`.
gain, method = torch.ones((), requires_grad=True), sage.Sage(reuse=0.3).seed(0)
loss = method.loss(deepcopy(net), gain * x, y)
assert method.last.mask.grad_fn is None
of_loss, = torch.autograd.grad(loss, gain, retain_graph=True)
of_mixed, = torch.autograd.grad(0.7 * bce(deepcopy(net)(method.last.x), method.last.y), gain)
torch.testing.assert_close(of_loss, of_mixed)
