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
# # Rearrangement explorer
#
# Move one image over another and watch what SAGE watches: the mask of Equation 2, the mixed image,
# and $v(\tau)$ of Equation 4, the saliency that the mix keeps. [Chapter 4](04_rearrangement.ipynb)
# derives them, [chapter 8](08_search.ipynb) searches them.
#
# The maps are computed by the library when this page is built, from a network trained for a few
# epochs on the built-in images. All else happens in your browser, by the same equations.

# %% tags=["parameters", "hide-cell"]
seed = 0
train_images = 1000
epochs = 10
lam = 0.4

# %% tags=["hide-cell"]
import base64
import json

import torch
from IPython.display import HTML

from sagelib import catalog, datasets, show, teaching
from sagelib.losses import one_hot
from sagelib.methods import sage
from sagelib.rearrange import best_offset, offsets, total_saliency
from sagelib.saliency import smooth

train, test = catalog.load(datasets, "shapes", train=train_images)
net = teaching.short_training(train, epochs, seed)
x, y = test.normalised()[:100], one_hot(test.labels[:100], 10)
maps = teaching.saliency_maps(net, x, y)
chosen = [int((test.labels[:100] == k).nonzero()[0, 0]) for k in range(10)]  # one image of each class

# %% tags=["hide-input"]
# NBVAL_IGNORE_OUTPUT
images = [{"name": test.classes[test.labels[k]], "pixels": base64.b64encode(test.images[k].permute(1, 2, 0).contiguous().numpy()).decode(),
           "saliency": base64.b64encode(maps[k].contiguous().numpy()).decode()} for k in chosen]
like = sage.Sage()  # its defaults
data = {"height": 32, "width": 32, "mean": [255 * m for m in test.mean], "pair": [0, 3], "lam": lam, "sigma": like.sigma,
        "u": max(like.u, lam), "fraction": like.fraction, "images": images}
HTML(f'<div class="sage-explorer"><script type="application/json">{json.dumps(data)}</script>'
     "<p>The explorer runs on the book's site, where scripts are on. The picture below shows one of its states.</p></div>")

# %% [markdown]
# **What to do.**
#
# - Choose a pair. Drag the second image (orange) over the first (blue), or give the picture the
#   focus and use the arrow keys, with Shift for steps of four. A click on the landscape moves it
#   there.
# - The landscape is $v$ for all 3,969 shifts, bright where much saliency survives; its colours are
#   stretched anew for each pair and setting. White dots are a sample of 1 %, as SAGE draws one for
#   each batch; the white ring is the best of them, the red dot the best of all, the black ring
#   where you are.
# - In the maps and the mask, blue is the first image's and orange the second's.
# - $\lambda$ weighs the first image's map against the second's; it is drawn below $u$. $\sigma$ is
#   the blur of the maps in pixels.
#
# **What to try.** Put one object on the other: $v$ falls, since both want the same pixels. Set
# $\lambda$ near 0: the share $\gamma$ falls too. Set $\sigma$ to 0: the landscape becomes rough.
# Draw a few times, and compare the best of the sample with the best of all: how much does searching
# everything gain? (The cell below asserts the first three for the pair that is shown at first.)
#
# ## One state, still

# %% mystnb={"image": {"alt": "Two shapes with their saliency maps, the landscape of total saliency over all shifts, the mask at the best shift, and the mixed image in which both shapes are visible."}} tags=["hide-input"]
first, second = chosen[data["pair"][0]], chosen[data["pair"][1]]
pair = torch.tensor([1, 0])
s, every = smooth(maps[[first, second]]), offsets(32, 32)
a, b = sage.weighted(x[[first, second]], y[[first, second]], s, pair, lam)
mixed = sage.mix(x[[first, second]], y[[first, second]], s, pair, lam, every)
assert torch.equal(mixed.tau, best_offset(a, b, every))
v = total_saliency(a, b, every)[0]
peaks = [divmod(int(m.flatten().argmax()), 32) for m in (a[0], b[0])]
on_top = torch.tensor([peaks[0][0] - peaks[1][0], peaks[0][1] - peaks[1][1]])  # the most salient pixels on each other
assert v[(every == on_top).all(1)] < v.max() - 0.05
low = sage.mix(x[[first, second]], y[[first, second]], s, pair, 0.02, mixed.tau[:1])
assert low.share[0] < sage.mix(x[[first, second]], y[[first, second]], s, pair, lam, mixed.tau[:1]).share[0]
sharp = total_saliency(*sage.weighted(x[[first, second]], y[[first, second]], maps[[first, second]], pair, lam), every)[0]
rough = [float(z.view(63, 63).diff(n=2, dim=0).abs().mean()) for z in (sharp, v)]  # how far from straight, pixel by pixel
assert rough[0] > 1.2 * rough[1]
show.grid([[test.images[first], test.images[second], s[0], s[1], total_saliency(a, b, every)[0].view(63, 63), test.pixels(mixed.x[:1])[0]]],
          ["first", "second", "first's map", "second's map", "v of all shifts", f"best, γ {mixed.share[0]:.2f}"], size=1.3)
