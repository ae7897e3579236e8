"""R-Mix: M.-L. Luu, Z. Huang, E. P. Xing, Y. J. Lee, H. Wang, "Expeditious Saliency-guided Mix-up
through Random Gradient Thresholding", Workshop on Practical Deep Learning in the Wild, AAAI 2023.
https://arxiv.org/abs/2212.04875

The saliency of each image is averaged over the cells of a coarse grid. Each image draws a
percentile, and the cells above that percentile of its own map are its top. Where one image's cell
is top and the other's is not, the top one is shown alone; elsewhere the two are blended as in
Mixup. Nothing is optimised: chance takes the place of a search.

Written from a description of the method, without its code
(https://github.com/minhlong94/Random-Mixup; its README says MIT, a licence file is missing). Facts
from that repository's documentation, usage example and settings: cells of 8 or 16 pixels, drawn
anew for each step, on images of 32 pixels; lambda from Dirichlet(1, 1), which is uniform; binary
cross-entropy on the softmax; the gradient of the clean batch is dropped. What the description
leaves open, and our reading:
- the percentile is uniform on (0, 1), and rounds down to one of the cells, whose saliency is the
  threshold: at least one cell is not top, and a map of zeros has no top;
- lambda is one for the batch, the weight of the image itself where it is blended;
- the saliency is Equation 1 of SAGE, from cross-entropy, in evaluation mode as for Puzzle Mix here;
- the grid is 2 or 4 cells a side for images of any size.

RL-Mix, the same paper's learned choice of percentiles, is not here. The repository trains with one
cycle of the learning rate: the recipe's `schedule="one_cycle"`, not an option of the method.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method import (
    Mixed,
    SaliencyGuided,
    as_column,
    blend,
    check_pairs,
    check_saliency,
    number,
    scalar,
    whole,
)
from ..saliency import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

GRIDS = (2, 4)  # cells a side, each as likely


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
        pair: Int[Tensor, " b"], lam: float | Float[Tensor, ""] | Float[Tensor, " b"],
        threshold: float | Float[Tensor, ""] | Float[Tensor, " b"], cells: int = 4) -> Mixed:
    """Show the image that alone is salient in a cell, and blend the two in all other cells.

    s: saliency; pair: the partner of each image; lam in [0, 1]: weight of the image itself where it
    is blended; threshold in [0, 1]: the percentile of each image's own cells above which they are
    its top; cells: of the grid, a side. The label's share is the mean of the mask: the exact area.
    """
    check_pairs(x, y, pair, s)
    return mix_at(x, y, top_cells(s, threshold, cells), pair, lam)


def mix_at(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], top: Bool[Tensor, "b 1 h w"],
           pair: Int[Tensor, " b"],
           lam: float | Float[Tensor, ""] | Float[Tensor, " b"]) -> Mixed:
    """`mix` with the top pixels of each image, (B, 1, H, W), in place of saliency."""
    check_pairs(x, y, pair)
    own, other = top, top[pair]
    m = torch.where(own == other, as_column(lam, x), own.float())  # (B, 1, H, W)
    share = m.mean((1, 2, 3))
    return Mixed(blend(x, pair, m), blend(y, pair, share), mask=m, share=share, pair=pair)


def top_cells(s: Float[Tensor, "b 1 h w"],
              threshold: float | Float[Tensor, ""] | Float[Tensor, " b"],
              cells: int) -> Bool[Tensor, "b 1 h w"]:
    """Whether the cell of each pixel is above its image's threshold, (B, 1, H, W).

    Of the N cells of a grid, in the order of their mean saliency, number floor(threshold * (N - 1))
    is the limit, counted from 0: cells above it are top. cells: a side; where they do not divide
    the image, those at the bottom and at the right are smaller, and there may be fewer.
    """
    check_saliency(s, s)
    if cells < 1 or cells % 1 != 0:
        raise ValueError(f"cells is {cells!r}; it must be a whole number, at least 1")
    s = at_least_float32(s)
    threshold = scalar(threshold, s.device)
    if threshold.shape not in {(), (len(s),)}:
        raise ValueError(f"threshold must be one number or one for each of the {len(s)} images, "
                         f"not {tuple(threshold.shape)}")
    h, w = s.shape[2:]
    side = [-(-n // int(cells)) for n in (h, w)]  # pixels of a cell
    pooled = F.avg_pool2d(s, side, ceil_mode=True)  # (B, 1, rows, columns)
    flat = pooled.flatten(1)
    last = flat.shape[1] - 1
    rank = (threshold * last).long().clamp(0, last).expand(len(s))
    limit = flat.sort(1).values.gather(1, rank[:, None])  # (B, 1)
    top = pooled > limit[..., None, None]
    return top.repeat_interleave(side[0], 2).repeat_interleave(side[1], 3)[..., :h, :w]


@dataclass(kw_only=True)
class RMix(SaliencyGuided):
    """A batch permutation and a percentile for each image, a grid and a lambda for the batch.

    alpha: lambda is from Beta(alpha, alpha). cells: of the grid, a side; 0 draws 2 or 4 for each
    batch. per_image: a lambda for each image.
    """

    NEEDS, LABEL = "gradient", "mean of the mask"

    alpha: float = number(1.0, 0, 100)
    cells: int = whole(0, 0, 64)
    per_image: bool = False

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        check_saliency(s, x)
        pair = self.draw_permutation(len(x), x.device)
        lam = self.draw_beta(self.alpha, x.device, *self._many(x))
        threshold = self.draw_uniform(0, 1, x.device, len(x))
        grids = (self.cells,) if self.cells else GRIDS
        # all grids, and one of them drawn on the device: the host need not wait for a choice
        tops = torch.stack([top_cells(s, threshold, n) for n in grids])  # (grids, B, 1, H, W)
        drawn = self.draw_integers(len(grids), x.device, 1)
        return replace(mix_at(x, y, tops.index_select(0, drawn)[0], pair, lam), saliency=s)


build = RMix
