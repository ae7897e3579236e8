"""Cutout: T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with
Cutout", 2017.

https://arxiv.org/abs/1708.04552. A square of each image is painted with the mean colour; the label
stays. The difference from the authors' code: the side is a share of the image's, so that one
setting serves images of any size.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..method import Method, Mixed, check_pairs, number
from .cutmix import outside

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SETTINGS = {  # the paper's squares: 16 pixels on CIFAR-10, 8 on CIFAR-100
    "paper": {(data, net): dict(size=size) for data, size in (("cifar10", 0.5), ("cifar100", 0.25))
              for net in ("preactresnet18", "wrn16_8", "resnext29_4_24")},
}


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], box: Int[Tensor, "b 4"]) -> Mixed:
    """Images (B, C, H, W) with 0, the mean colour, inside their box; labels (B, K) as they are.

    box: top, left, bottom, right in pixels, bottom and right excluded; what is outside the image is
    cut.
    """
    check_pairs(x, y)
    if box.shape != (len(x), 4):
        raise ValueError(f"boxes are top, left, bottom, right for each of the {len(x)} images, "
                         f"not {tuple(box.shape)}")
    m = outside(box, *x.shape[2:]).to(x.dtype)  # (B, 1, H, W)
    return Mixed(x * m, y.clone(), mask=m)


def square(centre: Int[Tensor, "b 2"], h: int, w: int, size: float) -> Int[Tensor, "b 4"]:
    """Boxes (B, 4) of round(size * h) x round(size * w) around pixels `centre`, not clipped."""
    tall, wide = round(size * h), round(size * w)
    top, left = centre[:, 0] - tall // 2, centre[:, 1] - wide // 2
    return torch.stack([top, left, top + tall, left + wide], 1)


@dataclass(kw_only=True)
class Cutout(Method):
    """One square for each image, its centre anywhere in it; size: its side over the image's."""

    size: float = number(0.5, 0, 1)

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        h, w = x.shape[2:]
        centre = torch.stack([self.draw_integers(n, x.device, len(x)) for n in (h, w)], 1)
        return mix(x, y, square(centre, h, w, self.size))


build = Cutout
