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
# # Saliency: Equation 1
#
# Before SAGE can decide which parts of two images to keep, it has to know which parts matter. It
# asks the network that is being trained: where would a small change of a pixel change the loss the
# most?
#
# At the end of this chapter you can compute such a map, smooth it, scale it, and say how far it can
# be trusted. The built-in images come with exact masks of their objects, so we can measure what
# usually is only looked at.

# %% tags=["parameters"]
dataset = "shapes"  # or cifar10, cifar100, folder
root = None         # where the data set is; the shapes are built in
seed = 0
train_images = 1000
epochs = 12

# %% [markdown]
# ## A network to ask
#
# Saliency belongs to a network at a moment of its training. We train a narrow PreActResNet18
# {cite:p}`he2016preact` for a short while, and keep one that has learnt nothing for comparison.
# Several chapters start from this short training: it is `teaching.short_training`, shown below.

# %%
from copy import deepcopy

import matplotlib.pyplot as plt
import torch

from sagelib import models, show, teaching
from sagelib.catalog import load
from sagelib.losses import bce, one_hot
from sagelib.saliency import normalise, saliency, smooth

train, test = teaching.small_sets(dataset, root, train_images)
classes = len(train.classes)
as_told = dataset == "shapes"  # what the text says of images it says of shapes
torch.manual_seed(seed)
untrained = load(models, "preactresnet18", classes=classes, width=8).eval()
net = teaching.short_training(train, epochs, seed).eval()
show.source(teaching.short_training)

# %% [markdown]
# ## The equation
#
# Let $x$ be an image with three colour channels, $y$ its label, $f_\theta$ the network and $\ell$
# the loss it is trained with. The saliency of a pixel is the length of the gradient of the loss
# there, taken over the colours {cite:p}`ma2022sage`:
#
# $$
# s(x)[i, j] = \Big\| \big(\nabla_x\, \ell(f_\theta(x), y)\big)[i, j] \Big\|_2
# $$ (eq-saliency)
#
# One number for each pixel, never negative. Earlier work differentiates the score of one class
# {cite:p}`simonyan2013deep`; {eq}`eq-saliency` differentiates the full training loss, which is what
# later lets SAGE use the same backward pass to train.
#
# PyTorch computes the gradient with respect to the images by the same call as any other gradient,
# once the images require it.

# %%
x = test.normalised()[:60].requires_grad_()
y = one_hot(test.labels[:60], classes)
grad, = torch.autograd.grad(bce(net(x), y), x)
grad.shape

# %% [markdown]
# ## In loops, and in the library
#
# The obvious version walks over every pixel, squares the colours, adds and takes the root.

# %%
def slow_saliency(grad):
    s = torch.zeros(len(grad), 1, *grad.shape[2:])
    for n in range(len(grad)):
        for i in range(grad.shape[2]):
            for j in range(grad.shape[3]):
                s[n, 0, i, j] = sum(grad[n, c, i, j] ** 2 for c in range(3)) ** 0.5
    return s


torch.testing.assert_close(saliency(grad[:2]), slow_saliency(grad[:2]))
show.source(saliency)

# %% [markdown]
# The library offers a second norm. The authors' code takes the *mean of absolute values* over the
# colours where the paper writes the $\ell_2$ norm. The two maps are not equal, but nearly
# proportional: their correlation over all pixels is close to one.

# %%
# NBVAL_IGNORE_OUTPUT
def correlation(one, two):
    return torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1].item()


alike = [correlation(one, two) for one, two in zip(saliency(grad), saliency(grad, "l1"), strict=True)]
assert min(alike) > 0.95 or not as_told
print(f"correlation of the l2 and the l1 map: {min(alike):.3f} to {max(alike):.3f}")

# %% [markdown]
# ## Smooth, then normalise
#
# A raw gradient is speckled: neighbouring pixels carry very different values. The paper smooths
# each map with a Gaussian of one pixel and scales it so that it sums to one.
#
# The Gaussian is cut off after two pixels (a 5x5 window), and at the border the image is mirrored,
# without repeating its last pixel. In loops:

# %%
def slow_blur(s):
    h, w = s.shape
    out, reach = torch.zeros(h, w), range(-2, 3)
    weight = {(p, q): torch.exp(torch.tensor(-(p * p + q * q) / 2)) for p in reach for q in reach}
    mirror = lambda k, n: -k if k < 0 else 2 * (n - 1) - k if k >= n else k  # noqa: E731
    for i in range(h):
        for j in range(w):
            for (p, q), g in weight.items():
                out[i, j] += g * s[mirror(i + p, h), mirror(j + q, w)]
    return out / sum(weight.values())


s = saliency(grad)
torch.testing.assert_close(smooth(s)[0, 0], slow_blur(s[0, 0]))

# %% mystnb={"image": {"alt": "Five images of painted shapes, below each its raw speckled saliency map and its smoothed map; the bright spots lie on the object, most of all where its parts meet."}} tags=["hide-input"]
show.grid([test.pixels(x[:5].detach()), s[:5], smooth(s)[:5]], labels=["image", "raw", "smoothed"], size=1.4)

# %% [markdown]
# **What to see.** The bright pixels gather on the object and leave the background dark, although
# nobody told the network where the object is. Smoothing joins the speckles to a region that can be
# moved and mixed as a whole.
#
# ## On photographs
#
# Painted shapes are easy to read. The book's other pictures are crops of six free photographs,
# which come with scikit-image and scikit-learn:
#
# | photograph | by | licence |
# |---|---|---|
# | [astronaut](https://flic.kr/p/r9qvLn), Eileen Collins | NASA | public domain |
# | cat, Chelsea | Stefan van der Walt | CC0 |
# | coffee, Pikolo Espresso Bar | Rachel Michetti | CC0 |
# | [flower](https://www.flickr.com/photos/vultilion/6056698931/), cropped and resized | vultilion on Flickr | [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/) |
# | [pagoda](https://www.flickr.com/photos/danielbuechele/6061409035/), cropped and resized | danielbuechele on Flickr | [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/) |
# | [rocket](https://www.flickr.com/photos/spacexphotos/16511594820/), DSCOVR | SpaceX | public domain |
#
# (In later chapters they are also mixed with each other.)
#
# A network learns which of the six objects a crop shows, or that it shows none of them, only their
# surroundings. Training and test crops are from the same photographs, so this says nothing about
# photographs that it has not seen. Outlines drawn by hand take the place of exact masks. The images
# have 96 x 96 pixels, so the maps are smoothed with a Gaussian of three.

# %% mystnb={"image": {"alt": "Crops of six photographs, an astronaut, a cat, a cup of coffee, a flower, a pagoda and a rocket, and below each its saliency map: bright on the collar of the space suit, along the cat's nose, on the rim of the cup, on the petals and on the roofs; for the rocket also in the empty sky."}} tags=["hide-input"]
# NBVAL_IGNORE_OUTPUT
photos, photo_net = teaching.photographs(seed=seed)
x_photo = photos.normalised()  # (N, 3, 96, 96)
s_photo = teaching.saliency_maps(photo_net, x_photo, one_hot(photos.labels, len(photos.classes)))
s_photo, objects = normalise(smooth(s_photo, 3)), photos.masks.float()
first = [int((photos.labels == k).nonzero()[0]) for k in photos.labels.unique()]
show.grid([photos.images[first], s_photo[first]], [photos.classes[k] for k in photos.labels[first]],
          ["image", "saliency"], size=1.2, jpeg=True)
area, on_object = objects.mean((1, 2, 3)), (s_photo * objects).sum((1, 2, 3))
assert on_object.mean() > area.mean()
show.table(["object", "its share of the area", "its share of the saliency"],
           [[name, *(float(z[photos.labels == k].mean()) for z in (area, on_object))]
            for k, name in enumerate(photos.classes) if (photos.labels == k).any()])

# %% [markdown]
# **What to see.** Here, too, the network looks at the objects, and at parts of them: the collar of
# the space suit, the rim of the cup, the eaves of the pagoda. The rocket is the exception: much of
# its map lies on the empty sky. A map tells where a change of the pixels would matter, not where
# the object is.
#
# ## Normalise
#
# Normalising looks harmless, a division by a sum. It is the step in which things break.

# %%
show.source(normalise)

# %% [markdown]
# ## What would break it
#
# An image of which the network is quite sure has hardly any gradient; an image in half precision
# may have none at all. A map of zeros divided by its sum gives NaN, and one NaN in a map makes an
# image, a label, and one step later every weight NaN. The authors' code has no guard here.

# %%
zero, broken = torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)
broken[0, 0, 1, 2] = torch.inf
for bad in (zero, broken):
    assert (bad / bad.sum()).isnan().any()
    torch.testing.assert_close(normalise(bad), torch.full((1, 1, 4, 6), 1 / 24))

# %% [markdown]
# The library's answer is the honest one: a map that says nothing counts the same everywhere. Very
# large and very small maps keep their meaning, because each is divided by its largest value before
# it is summed.
#
# The second trap is the scale of the loss. Its mean over a batch makes every gradient smaller by
# the batch size, and a sure image has a much smaller gradient than an unsure one. Only after
# normalising do the maps weigh alike.

# %%
# NBVAL_IGNORE_OUTPUT
alone, = torch.autograd.grad(bce(net(x[:1]), y[:1]), x)
torch.testing.assert_close(normalise(saliency(alone[:1])), normalise(s[:1]), rtol=1e-3, atol=1e-6)
total = s.sum((1, 2, 3))
assert total.max() > 3 * total.min() or not as_told
print(f"the largest map sums to {total.max() / total.min():.0f} times the smallest")

# %% [markdown]
# That equality holds because the network is in evaluation mode here. During training, BatchNorm
# ties the images of a batch together: the gradient of one image then also runs through the
# statistics that all others were normalised with. SAGE's saliency pass works in training mode, so
# an image's map depends a little on its neighbours in the batch.

# %%
# NBVAL_IGNORE_OUTPUT
def train_mode_map(images, labels):
    copy, images = deepcopy(net).train(), images.detach().requires_grad_()
    return saliency(torch.autograd.grad(bce(copy(images), labels), images)[0])[:1]


first = train_mode_map(x[:10], y[:10])
other = train_mode_map(torch.cat([x[:1], x[30:39]]), torch.cat([y[:1], y[30:39]]))
assert not torch.allclose(normalise(first), normalise(other), rtol=1e-2) or not as_told
print(f"same image, other company: correlation {correlation(smooth(first), smooth(other)):.2f}; "
      f"training mode and evaluation mode: {correlation(smooth(first), smooth(s[:1])):.2f}")

# %% [markdown]
# ## How much of it falls on the object?
#
# Now the masks earn their keep. (A data set without masks counts whole images as objects, and the
# numbers say nothing.) For each image we ask which share of the normalised map lies on the
# object, and compare it with the share of the area that the object takes: what a map without
# knowledge would put there.
#
# A second measure is the *pointing game*: does the brightest pixel lie on the object?

# %% mystnb={"image": {"alt": "Bars: share of the image that is object, and the share of saliency on it for the untrained and the trained network; the trained network's bar is the highest."}} tags=["hide-input"]
masks = teaching.object_masks(test)[:60]
share = {"area of the object": masks.mean().item()}
for name, who in (("untrained", untrained), ("trained", net)):
    found = smooth(saliency(torch.autograd.grad(bce(who(x), y), x)[0]))
    share[name] = (normalise(found) * masks).sum((1, 2, 3)).mean().item()
    top = found.flatten(1).argmax(1, keepdim=True)
    share[f"{name}:\nbrightest pixel"] = masks.flatten(1).gather(1, top).mean().item()
if as_told:
    assert share["trained"] > max(1.5 * share["area of the object"], share["untrained"])
    assert share["trained:\nbrightest pixel"] > share["area of the object"]
show.bars(share, "share on the object", limit=(0, 1.1), size=(7, 3))

# %% [markdown]
# **What to see.** The trained network spends clearly more of its saliency on the object than the
# area alone would give, and its brightest pixel is mostly there. The rest is not lost: an object's
# outline is only visible against what is around it, so some saliency just outside is deserved.
#
# A share well below one is worth remembering. A method that keeps the salient pixels keeps *most of
# what matters for this network now*, not "the object". How much of each object survives in a mix is
# measured in the next chapters.
#
# ## Exercises

# %% [markdown]
# ### Exercise 2.1
#
# SAGE differentiates the loss. Use the score of the true class instead {cite:p}`simonyan2013deep`.
# For how many of the 60 images do the smoothed maps correlate above 0.9? Does either put more
# saliency on the objects?

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
score = net(x)[range(60), test.labels[:60]].sum()
classic = smooth(saliency(torch.autograd.grad(score, x)[0]))
alike = torch.tensor([correlation(a, b) for a, b in zip(classic, smooth(s), strict=True)])
on_object = [(normalise(m) * masks).sum((1, 2, 3)).mean().item() for m in (classic, smooth(s))]
assert alike.mean() > 0.5 or not as_told
print(f"{(alike > 0.9).sum()} of 60 above 0.9; on the object: score {on_object[0]:.2f}, loss {on_object[1]:.2f}")

# %% [markdown]
# ### Exercise 2.2
#
# Half precision keeps numbers down to about 6e-8. Which share of the raw gradient, as the mean over
# a batch of 100 would make it, becomes exactly zero in float16? How does the library's `saliency`
# treat a float16 gradient?

# %% tags=["hide-cell"]
# NBVAL_IGNORE_OUTPUT
small = grad * 60 / 100
lost = ((small.half() == 0) & (small != 0)).float().mean().item()
assert torch.equal(small.half() == 0, small.abs() <= 2**-25) and saliency(small.half()).dtype == torch.float32
print(f"{lost:.1%} of the gradient is zero in float16: scale the loss before the backward pass, or use bfloat16")

# %% [markdown]
# ### Exercise 2.3
#
# Show that normalising after smoothing and smoothing after normalising give the same map, except
# near the border. Why there? (Think of what mirroring does to the sum.)

# %% tags=["hide-cell"]
first, second = normalise(smooth(s)), smooth(normalise(s))
assert (first - second).abs().max() / first.max() < 0.05
torch.testing.assert_close(first.sum((1, 2, 3)), torch.ones(60))
assert (second.sum((1, 2, 3)) - 1).abs().max() > 1e-4  # mirrored pixels count twice, those next to the border less

# %% [markdown]
# ### Exercise 2.4
#
# Draw the share of saliency on the object for smoothing with sigma from 0 to 4 pixels. What does
# too much smoothing do?

# %% mystnb={"image": {"alt": "A falling curve: the share of saliency on the object against the width of the Gaussian."}} tags=["hide-cell"]
sigmas = [0, 0.5, 1, 2, 3, 4]
on_object = [(normalise(smooth(s, sigma)) * masks).sum((1, 2, 3)).mean().item() for sigma in sigmas]
assert on_object[-1] < on_object[0] or not as_told
_, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
axis.plot(sigmas, on_object, marker="o")
axis.set(xlabel="sigma, pixels", ylabel="share on the object", ylim=(0, 1))
plt.show()
