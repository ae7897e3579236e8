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
# # The mask: Equation 2
#
# Two images, two saliency maps. Who gets which pixel? Mixup splits every pixel in the same
# proportion; CutMix gives each pixel whole to one of the two, by a box that knows nothing.
# Equation 2 splits each pixel in the proportion of what the two images would lose there.
#
# At the end of this chapter you can mix two images by their saliency, say what the label must be,
# and name the case in which this is not enough: the reason for the chapter after it.

# %% tags=["parameters"]
dataset = "shapes"  # or cifar10, cifar100, folder
root = None         # where the data set is; the shapes are built in
seed = 0
train_images = 1000
epochs = 12

# %% [markdown]
# We need a network to ask for saliency, trained for a short while as in [the chapter
# before](02_saliency.ipynb), and the smoothed, normalised maps of some test images.

# %%
import matplotlib.pyplot as plt
import torch

from sagelib import show, teaching
from sagelib.losses import one_hot
from sagelib.mask import mask
from sagelib.methods import sage
from sagelib.saliency import normalise, smooth

train, test = teaching.small_sets(dataset, root, train_images)
as_told = dataset == "shapes"  # what the text says of images it says of shapes
net = teaching.short_training(train, epochs, seed).eval()
x, y = test.normalised()[:200], one_hot(test.labels[:200], len(train.classes))
raw = smooth(teaching.saliency_maps(net, x, y))
s = normalise(raw)

# %% [markdown]
# ## The equation
#
# Let $\tilde s_1$ and $\tilde s_2$ be the two smoothed, normalised maps. The mask is the first
# one's share of their sum, pixel by pixel, and the image is mixed with it {cite:p}`ma2022sage`:
#
# $$
# \begin{aligned}
# M &= \frac{\tilde s_1}{\tilde s_1 + \tilde s_2 + \zeta} \\[0.4em]
# x' &= M \odot x_1 + (1 - M) \odot x_2
# \end{aligned}
# $$ (eq-mask)
#
# $M$ is 1 where only the first image has anything to say, 0 where only the second has, and one half
# where both have as much. The small $\zeta$ keeps the fraction from being zero over zero; the paper
# gives no value for it.

# %%
def slow_mask(a, b):
    m = torch.zeros_like(a)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if a[i, j] + b[i, j] > 0:
                m[i, j] = a[i, j] / (a[i, j] + b[i, j])
    return m


torch.testing.assert_close(mask(s[0], s[1])[0], slow_mask(s[0, 0], s[1, 0]))
show.source(mask)

# %% [markdown]
# The library's version is the same in three lines for whole batches, and never divides by zero.
#
# Where neither image has saliency the mask is 0, so such a pixel goes to the second image. That is
# what any small $\zeta$ gives in the limit, and the plain fraction does not: it gives NaN.

# %%
a, b = torch.tensor([0.0, 0.0, 0.2]), torch.tensor([0.0, 0.3, 0.2])
assert (a / (a + b)).isnan()[0]
torch.testing.assert_close(mask(a, b), a / (a + b + 1e-12))
mask(a, b)

# %% [markdown]
# ## The paper's Figure 3
#
# The figure sets saliency-guided mixing beside plain Mixup {cite:p}`zhang2018mixup`. Both follow
# the same formula, $x' = M \odot x_1 + (1 - M) \odot x_2$. The only difference is the mask: Mixup
# with $\lambda = 0.5$ has one half everywhere, {eq}`eq-mask` has a value of its own for each pixel.

# %% mystnb={"image": {"alt": "Two rows, each with two images, their saliency maps, the mask in blue for the first image and red for the second, the guided mix with two clear objects, and the Mixup of the same pair with two faded ones."}} tags=["hide-input"]
def two_pairs_apart(s, labels):
    """Two pairs of images, of four classes, whose saliency maps overlap least."""
    overlap, pairs = torch.minimum(s[:, None], s[None]).sum((2, 3, 4)), []
    for k in overlap.flatten().argsort().tolist():
        more = [*pairs, divmod(k, len(s))]
        if len({int(labels[n]) for pair in more for n in pair}) == 2 * len(more):
            pairs = more
    return pairs[:2]


def figure_3(data, x, s, pairs, **options):
    """Two images, their maps, the mask, the guided mix and Mixup, for each pair of indices."""
    rows = []
    for i, j in pairs:
        m = mask(s[i], s[j])
        mixes = m * x[i] + (1 - m) * x[j], 0.5 * x[i] + 0.5 * x[j]
        rows.append([*map(data.pixels, (x[i], x[j])), s[i], s[j], m, *map(data.pixels, mixes)])
    titles = ["image 1", "image 2", "saliency 1", "saliency 2", "mask", "guided mix", "Mixup 0.5"]
    show.grid(rows, titles, kind=["mask" if t == "mask" else "saliency" for t in titles], **options)


apart = two_pairs_apart(s[:20], test.labels)
figure_3(test, x, s, apart, size=1.1)

# %% [markdown]
# **What to see.** Blue belongs to image 1, red to image 2, white is shared. In the guided mix each
# object is drawn by the image it belongs to, while Mixup fades both. These pairs were chosen
# because their objects lie apart. We come back to the others.
#
# The same on [photographs](02_saliency.ipynb) (their authors and licences are named there), with a
# network that was trained to recognise them:

# %% mystnb={"image": {"alt": "Two rows, each with two photographs, their saliency maps, the mask in blue and red, the guided mix, in which each object is clear on its own side, and the Mixup of the same pair, in which both are faded."}} tags=["hide-input"]
photos, photo_net = teaching.photographs(seed=seed)
x_photo = photos.normalised()[:60]  # (60, 3, 96, 96)
y_photo = one_hot(photos.labels[:60], len(photos.classes))
s_photo = normalise(smooth(teaching.saliency_maps(photo_net, x_photo, y_photo), 3))
figure_3(photos, x_photo, s_photo, two_pairs_apart(s_photo, photos.labels), size=1.2, jpeg=True)

# %% [markdown]
# **What to see.** The second pair shows the idea best: the mask draws the flower from one
# photograph and the pagoda from the other, and in the guided mix both have their own colours. In
# Mixup everything is half transparent. The rocket of the first pair shows what the mask depends on:
# it keeps what the network calls salient, which here is also a piece of the sky.
#
# ## The label
#
# The label follows the pixels, as in [the first chapter](01_mixing_images.ipynb): the share of the
# first label is the mean of the mask,
#
# $$
# \gamma = \frac{1}{hw} \sum_{i,j} M_{ij}, \qquad y' = \gamma\, y_1 + (1 - \gamma)\, y_2 .
# $$ (eq-gamma)
#
# Algorithm 1 adds one thing. Before the mask is made, the maps are weighted by $\lambda$ and
# $1 - \lambda$, with a random $\lambda$ for each batch. The same pair then gives many different
# mixes. How does $\gamma$ follow $\lambda$?

# %% mystnb={"image": {"alt": "Curves of gamma against lambda for twelve pairs, rising from 0 to 1 around the diagonal, all a little different."}}
lams = torch.linspace(0, 1, 21)
_, axis = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
for i in range(12):
    gamma = torch.stack([mask(lam * s[i], (1 - lam) * s[i + 20]).mean() for lam in lams])
    assert gamma[0] == 0 and gamma[-1] > 0.99 and (gamma.diff() >= -1e-6).all()
    axis.plot(lams, gamma, color=show.COLOURS["sage"], alpha=0.6)
axis.plot([0, 1], [0, 1], "k--", lw=1)
axis.set(xlabel="lambda", ylabel="gamma, share in the label")
plt.show()

# %% [markdown]
# **What to see.** Every pair has its own curve around the diagonal. Two maps with the same share of
# $\lambda$ may own very different areas: a map that is spread wide wins many pixels with little
# saliency each.
#
# ## The order of the steps
#
# Smooth, normalise, weight, and only then divide. If the maps are not normalised, an image of which
# the network is sure has tiny gradients and vanishes from every mix: not because it has nothing to
# show, but because the network has learnt it.

# %%
# NBVAL_IGNORE_OUTPUT
strength = raw.sum((1, 2, 3))
sure, unsure = strength.argmin(), strength.argmax()
without, with_it = mask(raw[sure], raw[unsure]).mean(), mask(s[sure], s[unsure]).mean()
assert without < 0.5 * with_it or not as_told
print(f"share of the sure image: {without:.3f} without normalising, {with_it:.3f} with it")

# %% [markdown]
# ## Does the object survive?
#
# With the exact masks of the objects we can ask what the paper's figure only suggests. For each
# pair: the share of each object that is still visible in the guided mix, against a Mixup that gives
# the label the same share $\gamma$.
#
# A fair comparison needs both objects: a method could always keep one of them by giving everything
# to it. We take the *worse* of the two survivors.

# %%
objects = teaching.object_masks(test)[:200]
i, j = torch.arange(100), torch.arange(100, 200)
m = mask(s[i], s[j])
kept_1 = (m * objects[i]).sum((1, 2, 3)) / objects[i].sum((1, 2, 3))
kept_2 = ((1 - m) * objects[j]).sum((1, 2, 3)) / objects[j].sum((1, 2, 3))
gamma = m.mean((1, 2, 3))
guided, faded = torch.minimum(kept_1, kept_2), torch.minimum(gamma, 1 - gamma)
common = (objects[i] * objects[j]).sum((1, 2, 3)) / torch.minimum(objects[i].sum((1, 2, 3)), objects[j].sum((1, 2, 3)))
if as_told:
    assert guided.mean() > faded.mean()
    assert guided[common < 0.25].mean() > guided[common > 0.5].mean()

# %% mystnb={"image": {"alt": "Scatter plot of the worse-off object's visible share against how much the two objects overlap: high for guided mixing where they lie apart, falling to the level of Mixup and below where they overlap."}} tags=["hide-input"]
_, axis = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
axis.scatter(common, guided, s=14, color=show.COLOURS["sage"], label="guided by saliency")
axis.scatter(common, faded, s=14, color=show.COLOURS["mixup"], label="Mixup, same label", marker="x")
axis.set(xlabel="overlap of the two objects", ylabel="visible share of the\nworse-off object", ylim=(0, 1))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# **What to see.** Where the objects lie apart (left), the mask keeps clearly more of the worse-off
# object than Mixup does. Where they overlap (right), there is nothing to gain: two objects want the
# same pixels, and the mask has to take from one what it gives to the other.
#
# That is a limit of any mask, however clever. The way out is to move one of the images, so that
# they do not overlap any more. [The next chapter](04_rearrangement.ipynb) does that.
#
# ## In the library
#
# `sage.mix` does all of this in one call. With the single candidate shift $(0, 0)$ it is exactly
# this chapter.

# %%
pair, still = torch.arange(200).roll(100), torch.zeros(1, 2, dtype=torch.long)
mixed = sage.mix(x, y, raw, pair, 0.3, still)
m = mask(0.3 * s, 0.7 * s[pair])
torch.testing.assert_close(mixed.x, m * x + (1 - m) * x[pair])
torch.testing.assert_close(mixed.y.sum(1), torch.ones(200))

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 3.1
#
# Show that swapping the two images turns the mask into one minus the mask. Where does that fail?

# %% tags=["hide-cell"]
torch.testing.assert_close(mask(s[0], s[1]), 1 - mask(s[1], s[0]))
both_zero = torch.zeros(1)  # it fails where both are zero: the mask is 0 either way
assert mask(both_zero, both_zero) == 0 and 1 - mask(both_zero, both_zero) == 1

# %% [markdown]
# ### Exercise 3.2
#
# If both maps are uniform, which method is this? Prove it with `mixup.mix`.

# %% tags=["hide-cell"]
from sagelib.methods import mixup

flat = torch.ones_like(s)
torch.testing.assert_close(sage.mix(x, y, flat, pair, 0.3, still).x, mixup.mix(x, y, pair, 0.3).x, atol=1e-5, rtol=1e-4)

# %% [markdown]
# ### Exercise 3.3
#
# Make the mask hard: each pixel goes whole to the image with the larger saliency. What happens to
# the worse-off object, and what does the mixed image look like at the seams?

# %% mystnb={"image": {"alt": "Two mixes of one pair: soft, with smooth transitions, and hard, with ragged seams where the owner changes."}} tags=["hide-cell"]
hard = (s[i] > s[j]).float()
kept = torch.minimum((hard * objects[i]).sum((1, 2, 3)) / objects[i].sum((1, 2, 3)),
                     ((1 - hard) * objects[j]).sum((1, 2, 3)) / objects[j].sum((1, 2, 3)))
far_apart = common < 0.25  # here nothing of an object is faded any more
assert not as_told or kept[far_apart].mean() > guided[far_apart].mean()
p, q = apart[0]
soft = mask(s[p], s[q])
show.grid([[test.pixels(w * x[p] + (1 - w) * x[q]) for w in (soft, (soft > 0.5).float())]], ["soft", "hard"], size=1.7)
