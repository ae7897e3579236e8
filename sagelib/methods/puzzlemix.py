"""Puzzle Mix: J.-H. Kim, W. Choo, H. O. Song, "Puzzle Mix: Exploiting Saliency and Local Statistics
for Optimal Mixup", ICML 2020. https://arxiv.org/abs/2009.06962, with the settings of the SAGE
paper's comparison.

Two steps: which image shows in each block of a grid (labels 0, 1/2, 1 against smoothness and a
prior), and then where the patches of each image go so that its salient ones are shown (a transport
plan). Where this differs from the authors' code:
- the labels are the exact optimum, by one minimum cut for the batch; theirs (swap moves of gco,
  integer costs) misses it on up to a third of the images and overflows on very peaked maps;
- patches move by gather and scatter instead of by products with a dense plan; the plans are the
  same;
- images of any size: those that the grid does not divide are extended at the bottom and the right,
  and cut again.
"""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..method import (
    Mixed,
    SaliencyGuided,
    blend_labels,
    check_pairs,
    check_saliency,
    number,
    per_channel,
    scalar,
)
from ..pixels import to_pixels
from ..saliency import normalise
from ..solvers.min_cut import min_cut
from ..solvers.transport import move, transport_plan

GRIDS = (2, 4, 8, 16)


def mix(x, y, s, pair, lam, blocks, transport=True, mean=0.0, std=1.0, *, beta=1.2, gamma=0.5,
        eta=0.2, t_eps=0.8, t_size=4, neigh_size=4):
    """Label each of blocks x blocks blocks, move each image's patches, and mix: section 3 of the
    paper.

    x (B, C, H, W), y (B, K), s (B, 1, H, W) or (B, H, W) saliency, pair (B,) integers, lam in [0,
    1] a number or (B,);
    mean, std: of the normalised images, to get back to [0, 1]. beta: smoothness of the labels,
    gamma: of the picture;
    eta: weight of the prior; t_eps: price of distance; t_size, neigh_size: pixels of a patch and of
    a cell that is compared, at most. The label's share is the mean of the mask.
    """
    check_pairs(x, y, pair)
    s = s[:, None] if s.ndim == 3 else s
    check_saliency(s, x)
    if blocks < 1 or int(blocks) != blocks:
        raise ValueError(f"blocks is {blocks!r}; it must be a whole number, at least 1")
    h, w = x.shape[2:]
    size = [blocks * _side(n, blocks, max(t_size, neigh_size)) for n in (h, w)]
    large, s = _extend(x, size), F.pad(s.float(), (0, size[1] - w, 0, size[0] - h))
    terms = energy_terms(to_pixels(large, mean, std), s, pair, lam, blocks, beta, gamma, eta,
                         neigh_size)
    shown = 1 - min_cut(*terms).to(x.dtype) / 2  # 1: the image itself, 0: its partner
    m = _enlarge(shown[:, None], size)
    one, two = large, large[pair]
    if transport:
        patch = [_divisor(n // blocks, t_size) for n in size]
        one = move(one, transport_plan(s, m, patch, t_eps), patch)
        two = move(two, transport_plan(s[pair], 1 - m, patch, t_eps), patch)
    m = m[:, :, :h, :w]
    share = m.float().mean((1, 2, 3))
    picture = m * one[:, :, :h, :w] + (1 - m) * two[:, :, :h, :w]
    return Mixed(picture, blend_labels(y, pair, share), mask=m, share=share, pair=pair)


def energy_terms(pixels, s, pair, lam, blocks, beta=1.2, gamma=0.5, eta=0.2, neigh_size=4):
    """What the labels 0, 1/2, 1 (share of the partner) cost: (unary (B, 3, n, n), down (B, n - 1,
    n), right (B, n, n
    - 1)).

    pixels (B, C, H, W) in [0, 1] and s (B, 1, H, W), both of sides that `blocks` divides. Two
    neighbours pay their weight times the square of the difference of their labels.
    """
    own = normalise(_pool(s, blocks))[:, 0]
    # what choosing the partner, or the image itself, gives up
    lose_own, lose_partner = own, own[pair]
    weights, b = [], beta / blocks / 16
    for axis in (1, 2):
        p = [[b * gamma * d
              for d in row]
             for row in _seams(pixels, pixels[pair], blocks, axis, neigh_size)]
        first, second = ((0, 0, 0, 1), (0, 0, 1, 0)) if axis == 1 else ((0, 1), (1, 0))
        lose_own = lose_own + F.pad((p[1][0] + p[1][1]) / 2, first) + F.pad(
            (p[0][1] + p[1][1]) / 2, second)
        lose_partner = lose_partner + F.pad((p[0][1] + p[0][0]) / 2, first) + F.pad(
            (p[1][0] + p[0][0]) / 2, second)
        weights.append((p[0][1] + p[1][0] - p[0][0] - p[1][1]) / 2 + b)
    lam = scalar(lam, s.device, s.dtype)
    binomial = torch.stack([lam**2, 2 * lam * (1 - lam), (1 - lam)**2], -1)
    prior = -(eta / blocks**2) * (binomial + 1e-8).log()
    unary = torch.stack([lose_partner, (lose_own + lose_partner) / 2, lose_own], 1)
    return unary + prior[..., None, None], *weights


def _seams(one, two, blocks, axis, neigh_size):
    """How unlike the pixels on both sides of a seam are: [[11, 12], [21, 22]] of (B, n - 1, n) or
    (B, n, n - 1).

    The first number says which image lies above (or left), the second which below (or right).
    """
    block = [n // blocks for n in one.shape[2:]]
    cell = [_divisor(n, neigh_size) for n in block]
    one, two = F.avg_pool2d(one, cell), F.avg_pool2d(two, cell)
    if axis == 2:
        one, two = one.mT, two.mT
    step, along = [n // c for n, c in zip(block, cell, strict=True)][::1 if axis == 1 else -1]

    def seam(a, b):
        apart = (a[:, :, step - 1:-1:step] - b[:, :, step::step]).abs().mean(1)
        apart = apart.reshape(len(a), blocks - 1, blocks, along).mean(3)
        return apart if axis == 1 else apart.mT

    return [[seam(a, b) for b in (one, two)] for a in (one, two)]


def _pool(s, blocks):
    return F.avg_pool2d(s, [n // blocks for n in s.shape[2:]])


def _side(n, blocks, cell):
    """Pixels of a block so that `blocks` of them cover n: a power of two up to `cell`, then a
    multiple of it."""
    side = -(-n // blocks)
    return 1 << (side - 1).bit_length() if side <= cell else -(-side // cell) * cell


def _divisor(n, most):
    return max(d for d in range(1, most + 1) if n % d == 0)


def _extend(x, size):
    return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]), mode="replicate")


def _enlarge(m, size):
    return m.repeat_interleave(size[0] // m.shape[2], 2).repeat_interleave(size[1] // m.shape[3], 3)


@dataclass(kw_only=True)
class PuzzleMix(SaliencyGuided):
    """One lambda from Beta(alpha, alpha), one pairing and one grid of 2, 4, 8 or 16 blocks a side
    for the batch.

    The saliency comes from a pass of its own in evaluation mode, with cross-entropy, and leaves no
    gradient. mean, std: of the normalised images. per_image: a lambda for each image; the grid is
    the batch's in any case. The other fields are those of `mix`; on images above 64 pixels patches
    grow with the image.
    """

    NEEDS, LABEL = "gradient, minimum cut, transport", "area"

    alpha: float = number(1.0, 0, 100)
    beta: float = number(1.2, 0, 100)
    gamma: float = number(0.5, 0, 1)
    eta: float = number(0.2, 0, 100)
    t_eps: float = number(0.8, 0, 100)
    transport: bool = True
    per_image: bool = False
    mean: float | tuple = per_channel(0.0, -100)
    std: float | tuple = per_channel(1.0, 0)

    def mix_with_saliency(self, x, y, s):
        blocks = self.draw_choice(n for n in GRIDS if n <= max(2, min(x.shape[2:]) // 2))
        many = self._many(x)
        pair, lam = self.draw_permutation(len(x),
                                          x.device), self.draw_beta(self.alpha, x.device, *many)
        mixed = mix(x, y, s, pair, lam, blocks, self.transport, self.mean, self.std, beta=self.beta,
                    gamma=self.gamma, eta=self.eta, t_eps=self.t_eps,
                    t_size=4 * -(-max(x.shape[2:]) // 64))
        return replace(mixed, saliency=s)


build = PuzzleMix
