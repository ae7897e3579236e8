"""CutMix: S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: Regularization Strategy to
Train Strong Classifiers with Localizable Features", ICCV 2019. https://arxiv.org/abs/1905.04899

As in the SAGE paper's comparison: alpha 1, every batch mixed (CutMix's own code mixes half of them
on CIFAR), one box and one pairing per batch, and the label follows the area of the box after it was
clipped at the border.
"""
from dataclasses import dataclass

import torch

from ..method import Method, Mixed, blend, check_pairs, number, scalar


def mix(x, y, pair, box):
    """The box of the partner pasted over each image; the label's share is the area that is left.

    x (B, C, H, W), y (B, K), pair (B,) integers; box = top, left, bottom, right in pixels (bottom
    and right excluded), one for the batch, (4,), or one for each image, (B, 4).
    """
    check_pairs(x, y, pair)
    box = torch.as_tensor(box, device=x.device)
    if box.shape not in {(4,), (len(x), 4)}:
        raise ValueError("a box is top, left, bottom, right: four numbers, or four for each of the "
                         f"{len(x)} images, not {tuple(box.shape)}")
    m = outside(box.expand(len(x), 4), *x.shape[2:]).to(x.dtype)
    share = m.float().mean((1, 2, 3))
    picture, label = blend(x, y, pair, m, share)
    return Mixed(picture, label, mask=m, share=share, pair=pair)


def outside(box, h, w):
    """Where an image is left by its box (B, 4): bool (B, 1, h, w)."""
    top, left, bottom, right = box[:, :, None, None].unbind(1)
    rows, columns = torch.arange(h, device=box.device)[:, None], torch.arange(w, device=box.device)
    return ~((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]


def box(h, w, lam, centre):
    """Top, left, bottom, right of the box of area 1 - lam around `centre` (row, column), clipped at
    the border.

    The sides are sqrt(1 - lam) of the image's; corners are clipped, then cut to whole pixels. lam
    0-d and centre (2,) give one box, (4,); lam (B,) and centre (B, 2) one for each image, (B, 4).
    """
    half = (1 - lam).clamp(0, 1).sqrt()[..., None] / 2
    size = torch.stack([scalar(n, centre.device) for n in (h, w)])
    low = torch.minimum((centre - half * size).clamp(min=0), size)
    high = torch.minimum((centre + half * size).clamp(min=0), size)
    return torch.cat([low, high], -1).long()


@dataclass(kw_only=True)
class CutMix(Method):
    """Area from Beta(alpha, alpha), centre uniform over the image, one pairing for the batch;
    per_image: a box for each image."""

    LABEL = "area"

    alpha: float = number(1.0, 0, 100)
    per_image: bool = False

    def mix(self, x, y, net=None):
        h, w = x.shape[2:]
        many = self._many(x)
        pair, lam = self.draw_permutation(len(x),
                                          x.device), self.draw_beta(self.alpha, x.device, *many)
        centre = torch.stack([self.draw_uniform(0, n, x.device, *many) for n in (h, w)], -1)
        return mix(x, y, pair, box(h, w, lam, centre))


build = CutMix
