"""The picture of the landing page and the README: what SAGE does, on two built-in images, in a row
and in two rows. `python book/picture.py`."""
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from sagelib import datasets, methods, models, show
from sagelib.catalog import load
from sagelib.data.batches import Batches
from sagelib.losses import bce, one_hot
from sagelib.mask import mask
from sagelib.methods import sage
from sagelib.rearrange import offsets, shift, total_saliency
from sagelib.saliency import normalise, saliency, smooth
from sagelib.train import Recipe, fit

PAIR, LAM = (1, 0), 0.45


def main():
    train, test = load(datasets, "shapes", difficulty=0.1)
    torch.manual_seed(0)
    net = load(models, "preactresnet18", classes=10, width=8)
    fit(net, Batches(train, 50, generator=torch.Generator().manual_seed(0)),
        load(methods, "vanilla").seed(0), Recipe(epochs=14), test=Batches(test, 500),
        on_epoch=lambda curve: print(curve[-1]["test_accuracy"]))
    net.eval()
    x = test.normalised(test.images[:40]).requires_grad_()
    y = one_hot(test.labels[:40], 10)
    grad, = torch.autograd.grad(bce(net(x), y), x)
    s = normalise(smooth(saliency(grad)))
    draw(test, x.detach(), y, s)


def draw(test, x, y, s):
    i, j = PAIR
    a, b = LAM * s[i:i + 1], (1 - LAM) * s[j:j + 1]
    tau = offsets(*x.shape[2:])
    v = total_saliency(a, b, tau)[0]
    best = tau[v.argmax()]
    pair = torch.tensor([1, 0])
    mixed = sage.mix(x[[i, j]], y[[i, j]], s[[i, j]], pair, LAM, tau)
    panels = [(test.pixels(x[i]), "image 1"), (test.pixels(x[j]), "image 2"),
              (s[i], "saliency 1"), (s[j], "saliency 2"),
              (v.view(63, 63), "total saliency\nof every shift"), (mask(a, shift(b, best)), "mask"),
              (test.pixels(mixed.x[0]), f"mix: label\n{mixed.share[0]:.2f} of 1, "
                                        f"{1 - mixed.share[0]:.2f} of 2")]
    # the second for a phone
    for name, rows, size in (("sage.png", 1, (13, 2.5)), ("sage_narrow.png", 2, (6, 3.9))):
        figure, axes = plt.subplots(rows, -(-len(panels) // rows), figsize=size,
                                    layout="constrained")
        for axis in axes.flat[len(panels):]:
            axis.remove()
        put(axes.flat, panels, best)
        figure.savefig(Path(__file__).with_name(name), dpi=100, facecolor="white")


def put(axes, panels, best):
    for axis, (z, title) in zip(axes, panels, strict=False):
        kind = {"mask": "mask"}.get(title, "value" if "shift" in title else "saliency")
        show.picture(axis, z, kind)
        axis.set_title(title, fontsize=13)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    axes[4].plot(best[1] + 31, best[0] + 31, "o", ms=9, mfc="none", mec="red", mew=2)


if __name__ == "__main__":
    main()
