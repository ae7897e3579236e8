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
# # Rearrangement: Equations 3 and 4
#
# When two objects want the same pixels, no mask can serve both. SAGE moves one of the images first:
# to the place where the mix keeps the most saliency. ([The explorer](explorer.ipynb) lets you do it
# by hand.)
#
# At the end of this chapter you can move an image, value a rearrangement, find the best of all
# 3,969 without building a single mask, and say what a random one per cent of them really chooses.

# %% tags=["parameters"]
dataset = "shapes"  # or cifar10, cifar100, folder
root = None         # where the data set is; the shapes are built in
seed = 0
train_images = 1000
epochs = 12

# %% [markdown]
# As before, we need the saliency maps that a briefly trained network gives.

# %%
import matplotlib.pyplot as plt
import torch

from sagelib import show, teaching
from sagelib.losses import one_hot
from sagelib.mask import mask
from sagelib.rearrange import best_offset, offsets, shift, total_saliency
from sagelib.saliency import normalise, smooth

train, test = teaching.small_sets(dataset, root, train_images)
as_told = dataset == "shapes"  # what the text says of images it says of shapes
net = teaching.short_training(train, epochs, seed).eval()
x, y = test.normalised()[:200], one_hot(test.labels[:200], len(train.classes))
s = normalise(smooth(teaching.saliency_maps(net, x, y)))

# %% [markdown]
# ## Moving an image
#
# The translation $\mathcal{T}$ moves everything by $\tau = (\tau_i, \tau_j)$, rows down and columns
# to the right, and fills what becomes empty with zeros {cite:p}`ma2022sage`:
#
# $$
# \mathcal{T}(z, \tau)[i, j] = \begin{cases} z[i - \tau_i,\; j - \tau_j] & \text{if that pixel exists,} \\ 0 & \text{otherwise.} \end{cases}
# $$ (eq-shift)

# %%
def slow_shift(z, tau):
    out = torch.zeros_like(z)
    for i in range(z.shape[1]):
        for j in range(z.shape[2]):
            if 0 <= i - tau[0] < z.shape[1] and 0 <= j - tau[1] < z.shape[2]:
                out[:, i, j] = z[:, i - tau[0], j - tau[1]]
    return out


moved = shift(x[:4], torch.tensor([9, -6]))
torch.testing.assert_close(moved[0], slow_shift(x[0], (9, -6)))
wide = torch.rand(1, 1, 6, 10)  # not square: here the order of rows and columns shows
assert shift(wide, torch.tensor([5, 0])).sum() > 0 and shift(wide, torch.tensor([0, 5])).sum() > 0
torch.testing.assert_close(shift(wide, torch.tensor([2, 3]))[0], slow_shift(wide[0], (2, 3)))

# %% mystnb={"image": {"alt": "Four pictures, and the same moved down by nine rows and left by six columns; the emptied border has one dull colour."}}
show.grid([test.pixels(x[:4]), test.pixels(moved)], labels=["image", "moved"], size=1.25)

# %% [markdown]
# **What to see.** Zeros are the mean colour, because the network's inputs are normalised. What
# leaves the frame is gone: its saliency is not shared out among the rest.
#
# The natural mistake is to swap rows and columns. On square images nothing looks wrong, only the
# wrong shifts are valued. On an image of 6 by 10 pixels a shift by 8 rows leaves nothing, a shift
# by 8 columns leaves a strip.

# %%
assert shift(wide, torch.tensor([8, 0])).sum() == 0 < shift(wide, torch.tensor([0, 8])).sum()

# %% [markdown]
# ## What a rearrangement is worth
#
# Mixed by the mask of [the chapter before](03_mask.ipynb), the two maps leave behind a *total
# saliency*: what the mixed image shows of both.
#
# $$
# v(\tau) = \sum_{i,j} \Big[ M^\tau \odot \tilde s_1 + (1 - M^\tau) \odot \mathcal{T}(\tilde s_2, \tau) \Big]
# $$ (eq-total)
#
# The best rearrangement is $\tau^* = \arg\max_\tau v(\tau)$. Written down as it stands:

# %%
def slow_total(a, b, tau):
    b = slow_shift(b, tau)
    m = mask(a, b)
    return (m * a + (1 - m) * b).sum()


a, b = torch.rand(2, 1, 6, 10), torch.rand(2, 1, 6, 10)
tau = offsets(6, 10)
assert len(tau) == (2 * 6 - 1) * (2 * 10 - 1)
literal = torch.stack([slow_total(a[1], b[1], t.tolist()) for t in tau])
torch.testing.assert_close(total_saliency(a, b, tau)[1], literal)

# %% [markdown]
# ## The same number without a mask
#
# Put the mask $M = a / (a + b)$ into {eq}`eq-total`, with $a$ for the first map and $b$ for the
# moved second. What is left at one pixel is
#
# $$
# M a + (1 - M)\, b \;=\; \frac{a^2 + b^2}{a + b} \;=\; a + b - \frac{2}{1/a + 1/b} .
# $$ (eq-pixel)
#
# The sum of $a$ never changes. The sum of what is still visible of $b$ is a rectangle of it, four
# look-ups in a table of sums. Only the last term needs work, and only where the two frames overlap.
# That is how the library searches.

# %%
p, q = a[0].double(), b[0].double()
m = mask(p, q)
torch.testing.assert_close(m * p + (1 - m) * q, (p**2 + q**2) / (p + q))
torch.testing.assert_close(m * p + (1 - m) * q, p + q - 2 / (1 / p + 1 / q))
show.source(total_saliency)

# %% [markdown]
# ## The landscape
#
# With all shifts valued we can look at the whole landscape of $v$ for one pair. We take two images
# whose objects overlap, and weight both maps by one half.

# %% mystnb={"image": {"alt": "A landscape over shifts: a dark dip near no shift, a bright ring around it with the optimum marked, falling off to the borders; 39 small crosses are a random sample."}} tags=["hide-input"]
i, j = torch.arange(100), torch.arange(100, 200)
everywhere = offsets(32, 32)
v = total_saliency(0.5 * s[i], 0.5 * s[j], everywhere)
none = (everywhere == 0).all(1)
n = (v.amax(1) - v[:, none][:, 0]).argmax()
best = everywhere[v[n].argmax()]
sample = everywhere[torch.randperm(len(everywhere), generator=torch.Generator().manual_seed(seed))[:39]]
_, axis = plt.subplots(figsize=(5.2, 4), layout="constrained")
drawn = axis.imshow(v[n].view(63, 63), extent=(-31.5, 31.5, 31.5, -31.5))
axis.plot(sample[:, 1], sample[:, 0], "x", color="white", ms=5, label="1 % sample")
axis.plot(0, 0, "s", mfc="none", color="white", label="no shift")
axis.plot(best[1], best[0], "o", mfc="none", color="red", ms=9, mew=2, label="best")
axis.set(xlabel="columns to the right", ylabel="rows down")
axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, facecolor="#444444", labelcolor="white")
plt.colorbar(drawn, label="total saliency v")
plt.show()

# %% [markdown]
# **What to see.** With no shift the two objects cover each other: a dip. Around it lies a ring of
# shifts at which they stand side by side, and outside the ring the second image leaves the frame
# and takes its saliency with it. At the far corners only the first image is left, and $v$ is its
# weight, one half.
#
# ## The paper's Figure 4
#
# Three rearrangements of that pair, from poor to best.

# %% mystnb={"image": {"alt": "The two images, then three columns with the mixed saliency above and the mixed image below: with no shift both objects lie on each other, at a middling shift the second is half out of the frame, at the best both are clear."}} tags=["hide-input"]
def figure_4(data, x, s, one, two, values, tau, **options):
    """Images one and two, and their mix at no shift, at a middling one and at the best of tau."""
    still, best = torch.zeros_like(tau[0]), tau[values.argmax()]
    unmoved = values[(tau == 0).all(1)]
    middle = tau[(values - (values.max() + unmoved) / 2).abs().argmin()]
    rows, titles = [[data.pixels(x[n])] for n in (one, two)], ["the images"]
    for t in (still, middle, best):
        a, b = 0.5 * s[one:one + 1], shift(0.5 * s[two:two + 1], t)
        m = mask(a, b)
        kept = m * a + (1 - m) * b
        rows[0].append(kept[0])
        rows[1].append(data.pixels(m * x[one] + (1 - m) * shift(x[two:two + 1], t))[0])
        titles.append(f"{tuple(t.tolist())}\nv = {kept.sum():.2f}")
    show.grid(rows, titles, **options)


figure_4(test, x, s, i[n], j[n], v[n], everywhere, size=1.5)

# %% [markdown]
# **What to see.** The first column wastes saliency, because strong pixels fall on each other and
# something between the two is kept. The second wastes it at the border, where the moved image
# leaves the frame. The last keeps nearly all of both.
#
# The same for [photographs](02_saliency.ipynb), whose saliency comes from a network trained to
# recognise them. Of 24 pairs the figure has the one that gains most by moving. Images of 96 x 96
# pixels have 36,481 shifts, and all are searched.

# %% mystnb={"image": {"alt": "Two photographs, a pagoda and a cup of coffee, then three columns with the mixed saliency above and the mixed image below: with no shift the cup is a ghost on the pagoda, at a middling shift half of it has left the frame, at the best shift it stands in front of the pagoda and both are clear."}} tags=["hide-input"]
photos, photo_net = teaching.photographs(seed=seed)
x_photo, y_photo = photos.normalised()[:96], one_hot(photos.labels[:96], len(photos.classes))
s_photo = normalise(smooth(teaching.saliency_maps(photo_net, x_photo, y_photo), 3))
differ = (photos.labels[:48] != photos.labels[48:96]).nonzero()[:24, 0]
tau_photo = offsets(96, 96)
v_photo = total_saliency(0.5 * s_photo[differ], 0.5 * s_photo[differ + 48], tau_photo)  # (24, T)
k = (v_photo.amax(1) - v_photo[:, len(tau_photo) // 2]).argmax()  # in the middle: no shift
figure_4(photos, x_photo, s_photo, differ[k], differ[k] + 48, v_photo[k], tau_photo,
         size=1.5, jpeg=True)

# %% [markdown]
# **What to see.** Unmoved, the cup is a ghost on the pagoda. Moved to the best place, each is
# visible on its own.
#
# `best_offset` returns the winner for each pair, and among equals the first: a search that is free
# to choose among equals could not be repeated.

# %%
found = best_offset(0.5 * s[i], 0.5 * s[j], everywhere)
assert torch.equal(found, everywhere[v.argmax(1)])
tie = torch.tensor([[3, 0], [1, 1], [1, 1]])
assert best_offset(s[:5] * 0, s[:5] * 0, tie).tolist() == [[3, 0]] * 5

# %% [markdown]
# ## One per cent
#
# The paper searches a random 1 % of all shifts, the same ones for the whole batch, and reports that
# this is *better* than searching all (its Table 3). What does such a search find? We draw 20
# samples of 39 and ask how far the best of each falls short, and how many different shifts the 100
# pairs of the batch end up with.

# %%
# NBVAL_IGNORE_OUTPUT
g = torch.Generator().manual_seed(seed)
short, distinct = [], []
for _ in range(20):
    some = torch.randperm(len(everywhere), generator=g)[:39]
    top, which = v[:, some].max(1)
    short.append((v.amax(1) - top) / (v.amax(1) - 0.5))  # 0.5 is what a shift out of the frame is worth
    distinct.append(which.unique().numel())
short, distinct = torch.stack(short), torch.tensor(distinct)
assert not as_told or (distinct.max() <= 25 and short.median() < 0.5)
print(f"of the gain over leaving the second image out, the median search misses {short.median():.0%}")
print(f"100 pairs use {distinct.min()} to {distinct.max()} different shifts, {distinct.float().mean():.1f} on average")

# %% mystnb={"image": {"alt": "Left: histogram of the distance of the best of all shifts. Right: scatter of the best shifts of 100 pairs, most within ten pixels of the centre, with the few shifts that one 1 percent sample uses."}}
fig, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
axes[0].hist(found.float().norm(dim=1), bins=15, color=show.COLOURS["sage"])
axes[0].set(xlabel="distance of the best shift, pixels", ylabel="pairs")
axes[1].scatter(found[:, 1], found[:, 0], s=12, color=show.COLOURS["sage"], label="best of all")
used = sample[v[:, [(everywhere == t).all(1).nonzero().item() for t in sample]].argmax(1)]
axes[1].scatter(used[:, 1], used[:, 0], s=60, marker="x", color=show.COLOURS["cutmix"], label="best of one 1 % sample")
axes[1].set(xlabel="columns", ylabel="rows", xlim=(-31, 31), ylim=(31, -31))
axes[1].legend(fontsize=8, loc="upper right")
plt.show()

# %% [markdown]
# **What to see.** The full search gives most pairs a shift of their own. The 1 % search sends a
# hundred pairs to a few, those that happen to lie near the centre, because a shift far out loses
# too much of the second image to win.
#
# So the 1 % search is not a slightly worse search: it is a different thing, a random shift common
# to many pairs with some choice left. Whether that is why it trains better is a hypothesis, which
# these pictures cannot decide.
#
# ## Does the object survive?

# %%
# NBVAL_IGNORE_OUTPUT
objects = teaching.object_masks(test)[:200]


def worse_off(t):
    m = mask(0.5 * s[i], shift(0.5 * s[j], t))
    first = (m * objects[i]).sum((1, 2, 3)) / objects[i].sum((1, 2, 3))
    second = ((1 - m) * shift(objects[j], t)).sum((1, 2, 3)) / objects[j].sum((1, 2, 3))
    return torch.minimum(first, second).mean().item()


kept = {"no shift": worse_off(torch.zeros(2, dtype=torch.long)), "best of 1 %": worse_off(used), "best of all": worse_off(found)}
assert kept["best of all"] > kept["no shift"] or not as_told
show.table(["search", "visible share of the worse-off object"], [[name, value] for name, value in kept.items()])

# %% [markdown]
# The best of all shifts helps the worse-off object, on average. How much a sample helps depends on
# its luck.
#
# ## Exercises

# %% [markdown]
# ### Exercise 4.1
#
# Show that at every pixel $(a^2 + b^2)/(a + b)$ lies between $(a + b)/2$ and $\max(a, b)$. What do
# the two bounds mean for $v$?

# %% tags=["hide-cell"]
kept_here = (p**2 + q**2) / (p + q)
assert (torch.maximum(p, q) >= kept_here).all() and (kept_here >= (p + q) / 2).all()
# a hard mask would keep max(a, b); plain Mixup at one half keeps (a + b) / 2; the soft mask lies
# between

# %% [markdown]
# ### Exercise 4.2
#
# Let both maps be uniform and $\lambda = 0.5$. Which shift is best, and what is $v$ there? Compute
# it by hand first.

# %% tags=["hide-cell"]
flat = torch.full((1, 1, 8, 8), 1 / 64)
values = total_saliency(0.5 * flat, 0.5 * flat, offsets(8, 8))[0]
# an overlap of area A keeps 0.5 + 0.5 A - 0.5 A = 0.5: every shift is worth the same, and the first
# wins
torch.testing.assert_close(values, torch.full_like(values, 0.5))

# %% [markdown]
# ### Exercise 4.3
#
# In the exercise before, let $\lambda = 0.2$. Which shifts win now, and why?

# %% tags=["hide-cell"]
values = total_saliency(0.2 * flat, 0.8 * flat, offsets(8, 8))[0]
assert offsets(8, 8)[values.argmax()].tolist() == [0, 0]  # shared, a pixel keeps 0.2² + 0.8²; of a alone, 0.2
torch.testing.assert_close(values.max(), torch.tensor((0.2**2 + 0.8**2) / 1.0))
