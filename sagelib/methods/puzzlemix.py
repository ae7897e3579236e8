"""Puzzle Mix: J.-H. Kim, W. Choo, H. O. Song, "Puzzle Mix: Exploiting Saliency and Local Statistics
for Optimal Mixup", ICML 2020. https://arxiv.org/abs/2009.06962, with the settings of the SAGE
paper's comparison.

Two steps: which image shows in each block of a grid (labels 0, 1/2, 1 against smoothness and a
prior), and then where the patches of each image go so that its salient ones are shown (a transport
plan). Where this differs from the authors' code:
- the labels are the exact optimum, by one minimum cut for the batch; theirs (swap moves of gco,
  integer costs) misses it on up to a third of the images and overflows on very peaked maps.
  `solver="swap"` makes their moves on their integers, without the overflow;
- patches move by gather and scatter instead of by products with a dense plan; the plans are the
  same;
- images of any size: those that the grid does not divide are extended at the bottom and the right,
  and cut again.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method import Mixed, SaliencyGuided, blend, check_pairs, choice, number, per_channel, scalar
from ..pixels import PerChannel, to_pixels
from ..saliency import normalise
from ..solvers.min_cut import min_cut
from ..solvers.swap_moves import swap_moves
from ..solvers.transport import move, transport_plan

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GRIDS = (2, 4, 8, 16)


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
        s: Float[Tensor, "b 1 h w"] | Float[Tensor, "b h w"], pair: Int[Tensor, " b"],
        lam: float | Float[Tensor, ""] | Float[Tensor, " b"], blocks: int, transport: bool = True,
        mean: PerChannel = 0.0, std: PerChannel = 1.0, *, beta: float = 1.2, gamma: float = 0.5,
        eta: float = 0.2, t_eps: float = 0.8, t_size: int = 4, neigh_size: int = 4,
        solver: str = "exact") -> Mixed:
    """Label each of blocks x blocks blocks, move each image's patches, and mix: section 3.

    s: saliency; lam in [0, 1]; mean, std: of the normalised images, to get back to [0, 1]. beta:
    smoothness of the labels, gamma: of the image; eta: weight of the prior; t_eps: price of
    distance; t_size, neigh_size: pixels of a patch and of a cell that is compared, at most; solver:
    of the labels, "exact" or the authors' "swap". The label's share is the mean of the mask.
    """
    s = s[:, None] if s.ndim == 3 else s
    check_pairs(x, y, pair, s)
    if blocks < 1 or blocks % 1 != 0:
        raise ValueError(f"blocks is {blocks!r}; it must be a whole number, at least 1")
    h, w = x.shape[2:]
    tall, wide = (_side(n, blocks, max(t_size, neigh_size)) for n in (h, w))
    cut = (0, blocks * wide - w, 0, blocks * tall - h)
    large, s = F.pad(x, cut, mode="replicate"), F.pad(s.float(), cut)
    terms = energy_terms(to_pixels(large, mean, std), s, pair, lam, blocks, beta, gamma, eta,
                         neigh_size)
    labels = min_cut(*terms) if solver == "exact" else labels_by_swaps(*terms)
    shown = 1 - labels.to(x.dtype) / 2  # (B, n, n): 1 the image itself, 0 its partner
    m = shown[:, None].repeat_interleave(tall, 2).repeat_interleave(wide, 3)
    one, two = large, large[pair]
    if transport:
        patch = _divisor(tall, t_size), _divisor(wide, t_size)
        one = move(one, transport_plan(s, m, patch, t_eps), patch)
        two = move(two, transport_plan(s[pair], 1 - m, patch, t_eps), patch)
    m = m[:, :, :h, :w]
    share = m.float().mean((1, 2, 3))
    images = m * one[:, :, :h, :w] + (1 - m) * two[:, :, :h, :w]  # (B, C, H, W)
    return Mixed(images, blend(y, pair, share), mask=m, share=share, pair=pair)


def energy_terms(
    pixels: Float[Tensor, "b c h w"], s: Float[Tensor, "b 1 h w"], pair: Int[Tensor, " b"],
    lam: float | Float[Tensor, ""] | Float[Tensor, " b"], blocks: int, beta: float = 1.2,
    gamma: float = 0.5, eta: float = 0.2, neigh_size: int = 4,
) -> tuple[Float[Tensor, "b 3 n n"], Float[Tensor, "b n-1 n"], Float[Tensor, "b n n-1"]]:
    """Costs of the labels 0, 1/2, 1 (B, 3, n, n), weights down (B, n-1, n) and right (B, n, n-1).

    A label is the partner's share of a block. `pixels` are in [0, 1], and `blocks` divides their
    sides. Two neighbours pay their weight times the square of the difference of their labels.
    """
    own = normalise(F.avg_pool2d(s, [n // blocks for n in s.shape[2:]]))[:, 0]  # (B, n, n)
    # what choosing the partner, or the image itself, gives up
    lose_own, lose_partner = own, own[pair]
    weights, b = [], beta / blocks / 16
    for axis in (1, 2):
        seams = _seams(pixels, pixels[pair], blocks, axis, neigh_size)
        p11, p12, p21, p22 = (b * gamma * d for d in seams)
        first, second = ((0, 0, 0, 1), (0, 0, 1, 0)) if axis == 1 else ((0, 1), (1, 0))
        lose_own = lose_own + F.pad((p21 + p22) / 2, first) + F.pad((p12 + p22) / 2, second)
        lose_partner = lose_partner + F.pad((p12 + p11) / 2, first) + F.pad((p21 + p11) / 2, second)
        weights.append((p12 + p21 - p11 - p22) / 2 + b)
    lam = scalar(lam, s.device, s.dtype)
    binomial = torch.stack([lam**2, 2 * lam * (1 - lam), (1 - lam)**2], -1)
    prior = -(eta / blocks**2) * (binomial + 1e-8).log()
    unary = torch.stack([lose_partner, (lose_own + lose_partner) / 2, lose_own], 1)  # (B, 3, n, n)
    down, right = weights
    return unary + prior[..., None, None], down, right


def labels_by_swaps(unary: Float[Tensor, "b 3 n n"], down: Float[Tensor, "b n-1 n"],
                    right: Float[Tensor, "b n n-1"]) -> Int[Tensor, "b n n"]:
    """The authors' labels (B, n, n) of `energy_terms`: swap moves on costs cut to whole numbers."""
    scale = 1000 * unary.shape[2] ** 2
    cost, down, right = ((scale * z).long() for z in (unary.movedim(1, 3), down, right))
    label = torch.arange(3, device=unary.device)
    apart = 25 * (label[:, None] - label).square()
    return swap_moves(100 * cost, apart.expand(len(cost), 3, 3), down, right)


def _seams(one, two, blocks, axis, neigh_size):
    """How unlike the pixels on both sides of the seams are: 11, 12, 21, 22.

    Each is (B, n - 1, n) or, across axis 2, (B, n, n - 1). The first digit says which image is
    above (or left), the second which is below (or right).
    """
    block = [n // blocks for n in one.shape[2:]]
    cell = [_divisor(n, neigh_size) for n in block]
    one, two = F.avg_pool2d(one, cell), F.avg_pool2d(two, cell)
    step, along = block[0] // cell[0], block[1] // cell[1]
    if axis == 2:
        one, two, step, along = one.mT, two.mT, along, step

    def seam(a, b):
        apart = (a[:, :, step - 1:-1:step] - b[:, :, step::step]).abs().mean(1)
        apart = apart.reshape(len(a), blocks - 1, blocks, along).mean(3)
        return apart if axis == 1 else apart.mT

    return [seam(a, b) for a in (one, two) for b in (one, two)]


def _side(n, blocks, cell):
    """Pixels of a block so that `blocks` cover n: a power of two up to `cell`, then a multiple."""
    side = -(-n // blocks)
    return 1 << (side - 1).bit_length() if side <= cell else -(-side // cell) * cell


def _divisor(n, most):
    return max(d for d in range(1, most + 1) if n % d == 0)


@dataclass(kw_only=True)
class PuzzleMix(SaliencyGuided):
    """One batch permutation, one lambda from Beta(alpha, alpha) and one grid for the batch.

    The grid has 2, 4, 8 or 16 blocks a side. The saliency comes from an extra pass in evaluation
    mode, with cross-entropy, and leaves no gradient. mean, std: of the normalised images.
    per_image: a lambda for each image; the grid is the batch's in any case. solver: "exact", or
    "swap", the authors' approximate one, on the host. The other fields are those of `mix`; on
    images above 64 pixels patches grow with the image.
    """

    NEEDS, LABEL = "gradient, minimum cut, transport", "area"

    alpha: float = number(1.0, 0, 100)
    beta: float = number(1.2, 0, 100)
    gamma: float = number(0.5, 0, 1)
    eta: float = number(0.2, 0, 100)
    t_eps: float = number(0.8, 0, 100)
    transport: bool = True
    per_image: bool = False
    mean: float | Sequence[float] = per_channel(0.0, -100)
    std: float | Sequence[float] = per_channel(1.0, 0)
    solver: str = choice("exact", "swap", later=True)

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        blocks = self.draw_choice(n for n in GRIDS if n <= max(2, min(x.shape[2:]) // 2))
        pair = self.draw_permutation(len(x), x.device)
        lam = self.draw_beta(self.alpha, x.device, *self._many(x))
        t_size = 4 * -(-max(x.shape[2:]) // 64)
        mixed = mix(x, y, s, pair, lam, blocks, self.transport, self.mean, self.std, beta=self.beta,
                    gamma=self.gamma, eta=self.eta, t_eps=self.t_eps, t_size=t_size,
                    solver=self.solver)
        return replace(mixed, saliency=s)


build = PuzzleMix
