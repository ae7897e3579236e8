"""CutMix: S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: Regularization Strategy to
Train Strong Classifiers with Localizable Features", ICCV 2019. https://arxiv.org/abs/1905.04899

As in the SAGE paper's comparison: alpha 1, every batch mixed (CutMix's own code mixes half of them
on CIFAR), one box and one batch permutation per batch, and the label follows the area of the box
after it was clipped at the border.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..method import Method, Mixed, blend, check_pairs, number, scalar

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], pair: Int[Tensor, " b"],
        box: Int[Tensor, " 4"] | Int[Tensor, "b 4"] | Sequence[int]) -> Mixed:
    """Images with the partner's box pasted over them; their labels' share is the area that is left.

    box: top, left, bottom, right in pixels (bottom and right excluded), one for the batch, (4,), or
    one for each image, (B, 4).
    """
    check_pairs(x, y, pair)
    box = torch.as_tensor(box, device=x.device)
    if box.shape not in {(4,), (len(x), 4)}:
        raise ValueError("a box is top, left, bottom, right: four numbers, or four for each of the "
                         f"{len(x)} images, not {tuple(box.shape)}")
    m = outside(box.expand(len(x), 4), *x.shape[2:]).to(x.dtype)  # (B, 1, H, W)
    share = m.float().mean((1, 2, 3))
    return Mixed(blend(x, pair, m), blend(y, pair, share), mask=m, share=share, pair=pair)


def outside(box: Int[Tensor, "b 4"], h: int, w: int) -> Bool[Tensor, "b 1 {h} {w}"]:
    """Which pixels of an image are outside its box, (B, 1, h, w)."""
    top, left, bottom, right = box[:, :, None, None].unbind(1)  # (B, 1, 1) each
    rows, columns = torch.arange(h, device=box.device)[:, None], torch.arange(w, device=box.device)
    return ~((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]


def box(h: int, w: int, lam: Float[Tensor, "*b"],
        centre: Float[Tensor, "*b 2"]) -> Int[Tensor, "*b 4"]:
    """Box of area 1 - lam around `centre` (row, column), clipped: top, left, bottom, right, (4,).

    The sides are sqrt(1 - lam) of the image's; corners are clipped, then cut to whole pixels. lam
    (B,) and centre (B, 2) give one box for each image, (B, 4).
    """
    half = (1 - lam).clamp(0, 1).sqrt()[..., None] / 2
    size = torch.stack([scalar(n, centre.device) for n in (h, w)])
    low = torch.minimum((centre - half * size).clamp(min=0), size)
    high = torch.minimum((centre + half * size).clamp(min=0), size)
    return torch.cat([low, high], -1).long()


@dataclass(kw_only=True)
class CutMix(Method):
    """One batch permutation and one box: area from Beta(alpha, alpha), centre uniform.

    per_image: a box for each image.
    """

    LABEL = "area"

    alpha: float = number(1.0, 0, 100)
    per_image: bool = False

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        h, w = x.shape[2:]
        many = self._many(x)
        pair = self.draw_permutation(len(x), x.device)
        lam = self.draw_beta(self.alpha, x.device, *many)
        centre = torch.stack([self.draw_uniform(0, n, x.device, *many) for n in (h, w)], -1)
        return mix(x, y, pair, box(h, w, lam, centre))


build = CutMix
