"""Saliency maps: Equation 1, and the smoothing and normalising that come before Equation 2.

Source: Ma, Dvornik, Zhang, Pishdad, Derpanis, Fazly, "SAGE: Saliency-Guided Mixup with Optimal
Rearrangements", BMVC 2022, sections 3.1 and 3.2. The authors' code takes the mean of absolute
values over the channels (`norm="l1"` here) where the paper takes the l2 norm.
"""
from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

NORMS = ("l2", "l1")


def saliency(grad: Float[Tensor, "b c h w"], norm: str = "l2") -> Float[Tensor, "b 1 h w"]:
    """How much each pixel moves the loss, (B, C, H, W) -> (B, 1, H, W), at least 0: Equation 1.

    `grad` is the gradient of the loss with respect to the images. `norm="l2"` is the paper's norm
    over the channels, `norm="l1"` the mean of absolute values of the authors' code. Computed and
    returned in float32 (float64 stays float64). Raises ValueError for another shape or norm.
    """
    if grad.ndim != 4:
        raise ValueError(
            f"saliency needs a gradient of shape (B, C, H, W), not {tuple(grad.shape)}")
    if norm not in NORMS:
        raise ValueError(f"unknown saliency norm {norm!r}; known: {', '.join(NORMS)}")
    g = at_least_float32(grad)
    return g.abs().mean(1, keepdim=True) if norm == "l1" else g.square().sum(1, keepdim=True).sqrt()


def smooth(s: Float[Tensor, "*b h w"], sigma: float = 1.0,
           radius: int | None = None) -> Float[Tensor, "*b h w"]:
    """Gaussian blur of maps or images (..., H, W), `sigma` in pixels, with a reflected border.

    The kernel reaches `radius` pixels to each side, ceil(2 sigma) unless told (5 x 5 for sigma 1),
    and sums to 1; the border pixel itself is not repeated. `sigma=0` returns the maps unchanged.
    Section 3.2 ("Gaussian-smoothed").
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma is {sigma}; it must be a finite number of pixels, at least 0")
    s = at_least_float32(s)
    if sigma == 0:
        return s
    radius = math.ceil(2 * sigma) if radius is None else radius
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    for axis in (-2, -1):
        wide = s.index_select(axis, mirrored(s.shape[axis], radius, s.device))
        parts = (w / sum(weights) * wide.narrow(axis, k, s.shape[axis])
                 for k, w in enumerate(weights))
        s = functools.reduce(torch.add, parts)  # one after another: all at once need more memory
    return s


def normalise(s: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Maps (B, 1, H, W), at least 0, scaled to sum to 1 each.

    A map with nothing in it, or with a NaN or an infinity anywhere, becomes uniform: the image then
    counts the same everywhere, and no NaN reaches a picture or a label (the authors' code divides
    0 by 0 there). Negative values count as 0.
    """
    if s.ndim != 4 or s.shape[1] != 1:
        raise ValueError(f"normalise needs maps of shape (B, 1, H, W), not {tuple(s.shape)}")
    s = at_least_float32(s).clamp(min=0)
    top = s.amax((-2, -1), keepdim=True)
    good = (top > 0) & (top < torch.inf)  # a NaN anywhere is the largest value too
    # dividing by the largest value first keeps the sum from overflowing or underflowing
    s = torch.where(good, s / torch.where(good, top, 1), 1)
    return s / s.sum((-2, -1), keepdim=True)


def at_least_float32(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The tensor in float32, or in float64 if it is: maps are never kept in half precision."""
    return z if z.dtype == torch.float64 else z.float()


def mirrored(n: int, radius: int, device: torch.device | str) -> Int[Tensor, " places"]:
    """Indices of n places and `radius` more on each side, mirrored at both ends."""
    if n == 1:
        return torch.zeros(1 + 2 * radius, dtype=torch.long, device=device)
    i = torch.arange(-radius, n + radius, device=device).abs() % (2 * (n - 1))
    return torch.minimum(i, 2 * (n - 1) - i)
