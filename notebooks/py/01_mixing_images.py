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
# # Mixing images
#
# A network that has seen only whole, clean images learns to be sure of itself. Mixing two images
# into one, and telling the network how much of each is in it, is a cheap way to teach it doubt.
#
# This chapter takes the two classics, Mixup and CutMix, down to the pixel. At its end you know what
# they do, what their labels promise, and how often the promise is kept. Both questions come back
# with SAGE.

# %% tags=["parameters"]
seed = 0
images = 400

# %% [markdown]
# ## Pictures to mix
#
# The book brings its own pictures: five painted shapes, striped or dotted, on clouded backgrounds.
# They are synthetic, so nothing that happens on them is evidence about photographs. But each comes
# with the exact mask of its object, and that lets us measure what is otherwise a matter of opinion.

# %% mystnb={"image": {"alt": "Ten small pictures: striped and dotted discs, squares, triangles, rings and crosses on cloudy backgrounds; below each a white silhouette of the object."}}
import torch

from sagelib import datasets, methods, show
from sagelib.catalog import load
from sagelib.losses import one_hot
from sagelib.methods import cutmix, mixup

train, test = load(datasets, "shapes", train=images)
first = [(test.labels == k).nonzero()[0, 0].item() for k in range(10)]
show.grid([test.images[first], test.masks[first].float()], size=0.95,
          titles=[test.classes[k].replace(" ", "\n") for k in range(10)])

# %% [markdown]
# A network does not see bytes but normalised numbers, with mean 0 and standard deviation 1 over the
# training set. Zero is therefore the mean colour, a dull brown or grey: where a method fills with
# zeros, that is what you see.
#
# A label is a row of one number for each class, and the row sums to one. A clean image has a single
# one in it.

# %%
x = train.normalised()
y = one_hot(train.labels, 10)
assert x.shape == (images, 3, 32, 32) and y.shape == (images, 10)
y[0]

# %% [markdown]
# *Vanilla* training leaves the images as they are. It is the yardstick of every table in this book.
#
# ## Mixup
#
# Mixup {cite:p}`zhang2018mixup` fades one image into another. With $\lambda$ between 0 and 1, and a
# partner $(x_2, y_2)$ for each image $(x_1, y_1)$:
#
# $$
# \begin{aligned}
# x' &= \lambda\, x_1 + (1 - \lambda)\, x_2 \\
# y' &= \lambda\, y_1 + (1 - \lambda)\, y_2
# \end{aligned}
# $$ (eq-mixup)
#
# The partner is another image of the same batch: a random order of the batch says who meets whom.
# In loops:

# %%
def slow_mixup(x, y, pair, lam):
    images, labels = torch.zeros_like(x), torch.zeros_like(y)
    for n in range(len(x)):
        for c in range(3):
            for i in range(x.shape[2]):
                images[n, c, i] = lam * x[n, c, i] + (1 - lam) * x[pair[n], c, i]
        labels[n] = lam * y[n] + (1 - lam) * y[pair[n]]
    return images, labels


pair = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
mixed = mixup.mix(x[:6], y[:6], pair, 0.7)
torch.testing.assert_close((mixed.x, mixed.y), slow_mixup(x[:6], y[:6], pair, 0.7))
show.source(mixup.mix)

# %% [markdown]
# The function is given the pairing and $\lambda$: chance stands apart from arithmetic everywhere in
# this library. The small class around it draws both, $\lambda$ from the distribution
# $\mathrm{Beta}(\alpha, \alpha)$.
#
# For $\alpha = 1$ that is the uniform distribution. For a small $\alpha$ nearly all draws lie close
# to 0 or 1, and the mixed image is almost one of the two.

# %% mystnb={"image": {"alt": "Three histograms of lambda: for alpha 0.2 two peaks at the ends, for alpha 1 flat, for alpha 4 a hill in the middle."}}
import matplotlib.pyplot as plt

method = load(methods, "mixup").seed(seed)
fig, axes = plt.subplots(1, 3, figsize=(7, 1.9), sharey=True, layout="constrained")
for axis, alpha in zip(axes, (0.2, 1.0, 4.0), strict=True):
    lam = torch.stack([method.draw_beta(alpha, "cpu") for _ in range(3000)])
    axis.hist(lam, bins=20, range=(0, 1), color=show.COLOURS["mixup"])
    axis.set(title=f"alpha = {alpha}", xlabel="lambda")
    assert abs(lam.var() - 1 / (4 * (2 * alpha + 1))) < 0.02
plt.show()

# %% [markdown]
# ## CutMix
#
# CutMix {cite:p}`yun2019cutmix` does not fade, it pastes: a box of the second image covers the
# first. Written with a mask $M$ that is 0 inside the box and 1 outside,
#
# $$
# \begin{aligned}
# x' &= M \odot x_1 + (1 - M) \odot x_2 \\
# \gamma &= \tfrac{1}{hw} \textstyle\sum_{i,j} M_{ij} \\
# y' &= \gamma\, y_1 + (1 - \gamma)\, y_2
# \end{aligned}
# $$ (eq-cutmix)
#
# Keep this form in mind. SAGE is {eq}`eq-cutmix` with a better mask, and Mixup is {eq}`eq-cutmix`
# with a mask that has the same value everywhere.
#
# The box has the area $1 - \lambda$ and a centre anywhere in the image, so part of it may hang over
# the border and is cut off.

# %%
def slow_cutmix(x, y, pair, box):
    top, left, bottom, right = box
    images, labels, h, w = x.clone(), y.clone(), *x.shape[2:]
    for n in range(len(x)):
        pasted = 0
        for i in range(top, bottom):
            for j in range(left, right):
                images[n, :, i, j] = x[pair[n], :, i, j]
                pasted += 1
        labels[n] = (1 - pasted / (h * w)) * y[n] + pasted / (h * w) * y[pair[n]]
    return images, labels


box = cutmix.box(32, 32, torch.tensor(0.5), torch.tensor([9.0, 20.0])).tolist()
pasted = cutmix.mix(x[:6], y[:6], pair, box)
torch.testing.assert_close((pasted.x, pasted.y), slow_cutmix(x[:6], y[:6], pair, box))
box

# %% mystnb={"image": {"alt": "Three pairs of pictures in columns: the image, its partner, their Mixup, a see-through overlay of both, and their CutMix, with a hard-edged box of the partner."}}
show.grid([test.pixels(z[:3]) for z in (x[:6], x[pair], mixed.x, pasted.x)],
          labels=["image", "partner", "Mixup", "CutMix"], size=1.1)

# %% [markdown]
# **What to see.** Mixup shows both objects, each half transparent, wherever they are. CutMix shows
# what is in the box as it is, and hides what was there before. Neither looks at what it mixes:
# where the object is plays no part.
#
# ## Labels must follow pixels
#
# There is a natural mistake in CutMix: to use the $\lambda$ that was drawn as the weight of the
# label. It is wrong whenever the box was cut off at the border, and then the label promises pixels
# that are not in the picture.
#
# (`NBVAL_IGNORE_OUTPUT`, here and in other cells, is a note to our tests, which run all cells and
# compare the outputs with those on this page: this one's may differ in the last digits from machine
# to machine.)

# %%
# NBVAL_IGNORE_OUTPUT
g = torch.Generator().manual_seed(seed)
wrong = []
for _ in range(2000):
    lam, centre = torch.rand((), generator=g), 32 * torch.rand(2, generator=g)
    top, left, bottom, right = cutmix.box(32, 32, lam, centre).tolist()
    wrong.append(1 - (bottom - top) * (right - left) / 1024 - lam.item())
wrong = torch.tensor(wrong)
assert wrong.mean() > 0.1 and wrong.min() > -0.1
print(f"the share left of the first image is on average {wrong.mean():.2f} larger than lambda, at most {wrong.max():.2f}")

# %% [markdown]
# No test that looks at shapes or sums finds this mistake: the wrong labels are perfectly good
# distributions. What finds it is a set of pictures made for the purpose. Let image $k$ be one in
# channel $k$ and zero in all others. Then the mean of channel $k$ of a mixed image *is* the share
# of image $k$ in it, and the label has to say the same.
#
# Every method of this library has to pass this test.

# %%
one_each = torch.eye(6)[:, :, None, None].expand(6, 6, 32, 32)
for made in (mixup.mix(one_each, torch.eye(6), pair, 0.7), cutmix.mix(one_each, torch.eye(6), pair, (0, 14, 12, 28))):
    torch.testing.assert_close(made.x.mean((2, 3)), made.y)

drawn = 0.5 * torch.eye(6) + 0.5 * torch.eye(6)[pair]  # the label of the lambda that was drawn
caught = (cutmix.mix(one_each, torch.eye(6), pair, box).x.mean((2, 3)) - drawn).abs().max()
assert caught > 0.05

# %% [markdown]
# ## What the label does not say
#
# So the label counts pixels. It does not count *which* pixels. We have the masks, so we can: the
# share of an object that survives is the weight of its own image, averaged over the object's
# pixels.

# %% mystnb={"image": {"alt": "Two scatter plots of the share of the object that survives against the share the label promises: for Mixup all points on the diagonal, for CutMix spread widely around it."}}
survives, promised = {"mixup": [], "cutmix": []}, {"mixup": [], "cutmix": []}
for name in survives:
    method = load(methods, name).seed(seed)
    for _ in range(4):
        made = method.mix(x, y)
        m, objects = made.mask.float(), train.masks.float()
        survives[name] += ((m * objects).sum((1, 2, 3)) / objects.sum((1, 2, 3)))[:100].tolist()
        promised[name] += made.share[:100].tolist()
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.1), sharey=True, layout="constrained")
for axis, name in zip(axes, survives, strict=True):
    axis.scatter(promised[name], survives[name], s=8, alpha=0.4, color=show.COLOURS[name])
    axis.set(title=name, xlabel="share in the label", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
axes[0].set_ylabel("share of the object that survives")
plt.show()

# %% [markdown]
# **What to see.** With Mixup the points lie on the diagonal: every pixel fades alike, so an object
# fades exactly as its label says. With CutMix a label may promise seven tenths of an object that is
# nearly hidden, or fade one that is untouched. Four batches make four vertical lines, because one
# box serves a whole batch.

# %%
# NBVAL_IGNORE_OUTPUT
gap = {name: (torch.tensor(survives[name]) - torch.tensor(promised[name])).abs() for name in survives}
assert gap["mixup"].max() < 1e-4 and gap["cutmix"].max() > 0.2
show.table(["method", "mean gap between label and object", "largest"],
           [[name, gap[name].mean().item(), gap[name].max().item()] for name in gap])

# %% [markdown]
# That is the opening for saliency. If a method knew where the object is, it could keep what matters
# of both images. The next chapter asks the network where that is.
#
# ## Exercises

# %% [markdown]
# ### Exercise 1.1
#
# Find the mixed image of a CutMix batch whose label promises the most of an object of which the
# least is visible, and show it beside its two sources.

# %% mystnb={"image": {"alt": "Three pictures: an image, its partner, and their CutMix, in which the box covers nearly the whole object of the first."}} tags=["hide-cell"]
made = load(methods, "cutmix").seed(3).mix(x, y)
objects = train.masks.float()
left = (made.mask * objects).sum((1, 2, 3)) / objects.sum((1, 2, 3))
worst = (made.share - left).argmax()
assert made.share[worst] - left[worst] > 0.1
show.grid([[train.pixels(x[worst]), train.pixels(x[made.pair[worst]]), train.pixels(made.x[worst])]], size=1.6,
          titles=["image", "partner", f"label {made.share[worst]:.2f},\nvisible {left[worst]:.2f}"])

# %% [markdown]
# ### Exercise 1.2
#
# How large is the mean share of the second image in CutMix with uniform $\lambda$, compared with
# the one half that Mixup gives? Explain the difference.

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
method = load(methods, "cutmix").seed(1)
second = torch.stack([1 - method.mix(x[:2], y[:2]).share[0] for _ in range(2000)]).mean().item()
assert second < 0.42  # what hangs over the border is cut off, so the second image gets less than one half
print(f"{second:.2f}")

# %% [markdown]
# ### Exercise 1.3
#
# Mix an image with itself, by Mixup and by CutMix. What must come out, and does it?

# %% tags=["hide-cell"]
itself = torch.arange(6)
torch.testing.assert_close(mixup.mix(x[:6], y[:6], itself, 0.3).x, x[:6])
assert torch.equal(cutmix.mix(x[:6], y[:6], itself, box).x, x[:6])
