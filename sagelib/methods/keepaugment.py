"""KeepAugment: C. Gong, D. Wang, M. Li, V. Chandra, Q. Liu, "KeepAugment: A Simple
Information-Preserving Data Augmentation Approach", CVPR 2021. https://arxiv.org/abs/2011.11778

Augment, but keep what matters: "cut" is Cutout whose square may not be one of the salient ones;
"paste" is RandAugment, after which a salient square of the original is put back. The label stays.
Saliency is the gradient of the label's logit, its largest absolute value over the channels, as in
the paper. The difference: the paper draws squares until one fits, here one is drawn at once from
all that do.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import class_score, logits_of
from ..method import Mixed, SaliencyGuided, check_pairs, choice, number, per_channel, whole
from . import cutout, randaugment
from .cutmix import outside

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def boxes(s: Float[Tensor, "b 1 h w"], size: float, quantile: float, keys: Float[Tensor, "b n"],
          salient: bool = False) -> Int[Tensor, "b 4"]:
    """One square for each image, (B, 4), of the least salient ones or, `salient`, of the others.

    size: the square's side over the image's; quantile: share of all squares that count as not
    salient; keys: random numbers, one for each place of the square, row by row: the largest allowed
    wins.
    """
    h, w = s.shape[2:]
    tall, wide = _sides(size, h, w)
    worth = F.avg_pool2d(s.float(), (tall, wide), 1).flatten(1)
    if keys.shape != worth.shape:
        raise ValueError(f"a square of {tall} x {wide} has {worth.shape[1]} places in {h} x {w} "
                         f"pixels: keys must be {tuple(worth.shape)}, not {tuple(keys.shape)}")
    limit = _quantile(worth, quantile)
    allowed = worth >= limit if salient else worth <= limit
    place = torch.where(allowed, keys, -1).argmax(1)
    top, left = place // (w - wide + 1), place % (w - wide + 1)
    return torch.stack([top, left, top + tall, left + wide], 1)


def _sides(size, h, w):
    """Height and width of the square in images of h x w pixels."""
    return max(1, round(size * h)), max(1, round(size * w))


def _quantile(z, q):
    """The q-quantile of each row of z (B, N), (B, 1), linear between neighbours.

    torch.quantile may need float64 for it.
    """
    z, rank = z.sort(1).values, q * (z.shape[1] - 1)
    below, above = z[:, int(rank), None], z[:, math.ceil(rank), None]
    return torch.lerp(below, above, rank - int(rank))


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], box: Int[Tensor, "b 4"],
        augmented: Float[Tensor, "b c h w"] | None = None) -> Mixed:
    """Images without their box, or `augmented` with the box pasted back; labels (B, K) stay."""
    if augmented is None:
        return cutout.mix(x, y, box)
    check_pairs(x, y)
    m = outside(box, *x.shape[2:]).to(x.dtype)  # (B, 1, H, W)
    return Mixed(m * augmented + (1 - m) * x, y.clone())


@dataclass(kw_only=True)
class KeepAugment(SaliencyGuided):
    """keep: "cut" or "paste"; size, quantile: as in `boxes`.

    ops, magnitude, mean, std: RandAugment's, for "paste".
    """

    NEEDS = "gradient"

    keep: str = choice("cut", "paste")
    size: float = number(0.5, 0, 1)
    quantile: float = number(0.6, 0, 1)
    ops: int = whole(2, 0, 20)
    magnitude: int = whole(9, 0, 30)
    mean: float | Sequence[float] = per_channel(0.0, -100)
    std: float | Sequence[float] = per_channel(1.0, 0)

    def saliency_loss(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        return class_score(logits_of(out, y.shape[1]), y)

    def saliency_from_grad(self, grad: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        return grad.float().abs().amax(1, keepdim=True)

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        h, w = x.shape[2:]
        tall, wide = _sides(self.size, h, w)
        places = (h - tall + 1) * (w - wide + 1)
        keys = self.draw_uniform(0, 1, x.device, len(x), places)
        box = boxes(s, self.size, self.quantile, keys, salient=self.keep == "paste")
        if self.keep == "cut":
            return replace(mix(x, y, box), saliency=s)
        seed = self.draw_seed()
        changed = randaugment.mix(x, y, seed, self.ops, self.magnitude, self.mean, self.std).x
        return replace(mix(x, y, box, changed), saliency=s)


build = KeepAugment
