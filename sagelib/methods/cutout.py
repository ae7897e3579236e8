"""Cutout: T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with
Cutout", 2017.

https://arxiv.org/abs/1708.04552. A square of each image is painted with the mean colour; the label
stays. The difference from the authors' code: the side is a share of the image's, so that one
setting serves images of any size.
"""
from dataclasses import dataclass

import torch

from ..method import Method, Mixed, check_pairs, number
from .cutmix import outside

SETTINGS = {  # the paper's squares: 16 pixels on CIFAR-10, 8 on CIFAR-100
    "paper": {(data, net): dict(size=size) for data, size in (("cifar10", 0.5), ("cifar100", 0.25))
              for net in ("preactresnet18", "wrn16_8", "resnext29_4_24")},
}


def mix(x, y, box):
    """Images (B, C, H, W) with 0, the mean colour, inside their box; labels (B, K) as they are.

    box (B, 4): top, left, bottom, right in pixels, bottom and right excluded; what lies outside is
    cut.
    """
    check_pairs(x, y, torch.arange(len(x), device=x.device))
    if box.shape != (len(x), 4):
        raise ValueError(f"boxes are top, left, bottom, right for each of the {len(x)} images, "
                         f"not {tuple(box.shape)}")
    m = outside(box, *x.shape[2:]).to(x.dtype)
    return Mixed(x * m, y.clone(), mask=m)


def square(centre, h, w, size):
    """Boxes (B, 4) of sides round(size * h) and round(size * w) around pixels `centre` (B, 2), not
    clipped."""
    sides = round(size * h), round(size * w)
    low = torch.stack([centre[:, k] - sides[k] // 2 for k in (0, 1)], 1)
    return torch.cat([low, torch.stack([low[:, k] + sides[k] for k in (0, 1)], 1)], 1)


@dataclass(kw_only=True)
class Cutout(Method):
    """One square for each image, its centre anywhere in it; size: the square's side over the
    image's."""

    size: float = number(0.5, 0, 1)

    def mix(self, x, y, net=None):
        h, w = x.shape[2:]
        place = dict(generator=self.generator, device=self._place(x.device))
        centre = torch.stack([torch.randint(n, (len(x),), **place) for n in (h, w)], 1).to(x.device)
        return mix(x, y, square(centre, h, w, self.size))


build = Cutout
