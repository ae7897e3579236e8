"""The picture of the landing page and the README: what SAGE does, on two built-in images and on two
photographs, in two rows and in four. `python book/picture.py`."""
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from sagelib import datasets, show, teaching
from sagelib.catalog import load
from sagelib.losses import one_hot
from sagelib.methods import sage
from sagelib.rearrange import offsets, total_saliency
from sagelib.saliency import normalise, smooth

LAM = 0.45
KINDS = ("saliency",) * 4 + ("value", "mask", "saliency")
# the second for a phone
FILES = {"sage.jpg": (2, (13, 4.7)), "sage_narrow.jpg": (4, (6, 7.4))}  # name -> rows, inches


def main():
    train, test = load(datasets, "shapes", difficulty=0.1)
    net = teaching.short_training(train, epochs=14).eval()
    photos, photo_net = teaching.photographs()
    examples = [panels(test, net, 1, 0, sigma=1),
                panels(photos, photo_net, *gaining_pair(photos, photo_net), sigma=3)]
    for name, (rows, size) in FILES.items():
        figure, axes = plt.subplots(rows, 14 // rows + (rows == 4), figsize=size,
                                    layout="constrained")
        for example, part in zip(examples, (axes[:rows // 2], axes[rows // 2:]), strict=True):
            put(part.flat, *example)
        figure.savefig(Path(__file__).with_name(name), dpi=80, facecolor="white",
                       pil_kwargs={"quality": 80})


def maps(data, net, count, sigma):
    """The first images, normalised, their soft labels, and their smoothed maps."""
    x, y = data.normalised()[:count], one_hot(data.labels[:count], len(data.classes))
    return x, y, normalise(smooth(teaching.saliency_maps(net, x, y), sigma))


def gaining_pair(data, net):
    """Of 24 pairs of two classes the one that gains most saliency by moving, as in chapter 4."""
    _, _, s = maps(data, net, 96, sigma=3)
    i = (data.labels[:48] != data.labels[48:96]).nonzero()[:24, 0]
    v = total_saliency(0.5 * s[i], 0.5 * s[i + 48], offsets(*s.shape[2:]))  # (24, T)
    k = i[(v.amax(1) - v[:, v.shape[1] // 2]).argmax()].item()
    return k, k + 48


def panels(data, net, i, j, sigma):
    """Images or maps with their titles, and where in the fifth the best shift is."""
    x, y, s = (z[[i, j]] for z in maps(data, net, max(i, j) + 1, sigma))
    h, w = x.shape[2:]
    tau = offsets(h, w)
    v = total_saliency(LAM * s[:1], (1 - LAM) * s[1:], tau)[0]
    mixed = sage.mix(x, y, s, torch.tensor([1, 0]), LAM, tau)
    share = mixed.share[0].item()
    shown = [(data.pixels(x[0]), "image 1"), (data.pixels(x[1]), "image 2"), (s[0], "saliency 1"),
             (s[1], "saliency 2"), (v.view(2 * h - 1, 2 * w - 1), "total saliency\nof every shift"),
             (mixed.mask[0], "mask"),
             (data.pixels(mixed.x[0]), f"mix: label\n{share:.2f} of 1, {1 - share:.2f} of 2")]
    return shown, tau[v.argmax()] + torch.tensor([h - 1, w - 1])


def put(axes, shown, best):
    for axis, (z, title), kind in zip(axes, shown, KINDS, strict=False):
        show.picture(axis, z, kind)
        axis.set_title(title, fontsize=13)
    axes[4].plot(best[1], best[0], "o", ms=9, mfc="none", mec="red", mew=2)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
