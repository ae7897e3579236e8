"""KeepAugment: C. Gong, D. Wang, M. Li, V. Chandra, Q. Liu, "KeepAugment: A Simple
Information-Preserving Data Augmentation Approach", CVPR 2021. https://arxiv.org/abs/2011.11778

Augment, but keep what matters: "cut" is Cutout whose square may not be one of the salient ones;
"paste" is RandAugment, after which a salient square of the original is put back. The label stays.
Saliency is the gradient of the label's logit, its largest absolute value over the channels, as in
the paper. The difference: the paper draws squares until one fits, here one is drawn at once from
all that do.
"""
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..losses import logits_of
from ..method import Mixed, SaliencyGuided, check_pairs, choice, number, per_channel, whole
from . import cutout, randaugment
from .cutmix import outside


def boxes(s, size, quantile, keys, salient=False):
    """One square for each image, (B, 4), among the least salient ones or, `salient=True`, among the
    others.

    s (B, 1, H, W) saliency; size: the square's side over the image's; quantile: share of all
    squares that count as not salient; keys (B, N) random numbers, one for each place of the square,
    row by row: the largest allowed wins.
    """
    h, w = s.shape[2:]
    sides = [max(1, round(size * n)) for n in (h, w)]
    worth = F.avg_pool2d(s.float(), sides, 1).flatten(1)
    if keys.shape != worth.shape:
        raise ValueError(
            f"a square of {sides[0]} x {sides[1]} has {worth.shape[1]} places in {h} "
            f"x {w} pixels: keys must be {tuple(worth.shape)}, not {tuple(keys.shape)}")
    limit = _quantile(worth, quantile)
    allowed = worth >= limit if salient else worth <= limit
    place = torch.where(allowed, keys, -1).argmax(1)
    top, left = place // (w - sides[1] + 1), place % (w - sides[1] + 1)
    return torch.stack([top, left, top + sides[0], left + sides[1]], 1)


def _quantile(z, q):
    """The q-quantile of each row of z (B, N), between neighbours linear, (B, 1); torch's may need
    float64."""
    z, rank = z.sort(1).values, q * (z.shape[1] - 1)
    below, above = z[:, int(rank), None], z[:, math.ceil(rank), None]
    return torch.lerp(below, above, rank - int(rank))


def mix(x, y, box, augmented=None):
    """Cut the box (B, 4) out of each image (B, C, H, W), or paste it onto `augmented` (B, C, H, W);
    labels as they are."""
    if augmented is None:
        return cutout.mix(x, y, box)
    check_pairs(x, y, torch.arange(len(x), device=x.device))
    m = outside(box, *x.shape[2:]).to(x.dtype)
    return Mixed(m * augmented + (1 - m) * x, y.clone())


@dataclass(kw_only=True)
class KeepAugment(SaliencyGuided):
    """keep: "cut" or "paste"; size, quantile: as in `boxes`; ops, magnitude, mean, std:
    RandAugment's, for "paste"."""

    NEEDS = "gradient"

    keep: str = choice("cut", "paste")
    size: float = number(0.5, 0, 1)
    quantile: float = number(0.6, 0, 1)
    ops: int = whole(2, 0, 20)
    magnitude: int = whole(9, 0, 30)
    mean: float | tuple = per_channel(0.0, -100)
    std: float | tuple = per_channel(1.0, 0)

    def saliency_loss(self, out, y):
        signed = y - 0.5 if y.shape[1] == 1 else y  # one logit z stands for -z/2 and z/2
        return (logits_of(out, y.shape[1]).float() * signed).sum()

    def saliency_from_grad(self, grad):
        return grad.float().abs().amax(1, keepdim=True)

    def mix_with_saliency(self, x, y, s):
        h, w = x.shape[2:]
        places = (h - max(1, round(self.size * h)) + 1) * (w - max(1, round(self.size * w)) + 1)
        keys = torch.rand(len(x), places, generator=self.generator,
                          device=self._place(x.device)).to(x.device)
        box = boxes(s, self.size, self.quantile, keys, salient=self.keep == "paste")
        if self.keep == "cut":
            return replace(mix(x, y, box), saliency=s)
        seed = self.draw_seed()
        changed = randaugment.mix(x, y, seed, self.ops, self.magnitude, self.mean, self.std).x
        return replace(mix(x, y, box, changed), saliency=s)


build = KeepAugment
