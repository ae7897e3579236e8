"""Blur: defocus, glass, motion and zoom, of images in [0, 1], and the filters that they share.

Severities and source: `__init__.py`.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...saliency import mirrored, smooth

if TYPE_CHECKING:
    from jaxtyping import Float


def defocus_blur(x: Float[Tensor, "b c h w"], radius: float, alias: float,
                 generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) filtered with a disk whose edge is softened by a Gaussian."""
    n, width = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    at = torch.arange(-n, n + 1.0, device=x.device)
    disk = (at.square() + at[:, None].square() <= radius**2).float()
    kernel = smooth(disk / disk.sum(), alias, width // 2)
    return _filter(x, kernel)


def glass_blur(x: Float[Tensor, "b c h w"], sigma: float, reach: int, rounds: int,
               generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Blur, let each pixel take the value of one nearby, in reading order from the end, blur again.

    The published code means to swap the two, but both sides of its assignment are views of one
    array, so that it copies. All images of a batch are shuffled in the same way here, the published
    ones each in its own.
    """
    x = gaussian_blur(x, sigma)
    h, w = x.shape[2:]
    order = list(range(h * w))
    rows = range(min(h - reach, h - 1), reach, -1)
    columns = range(min(w - reach, w - 1), reach, -1)
    inner = [(i, j) for i in rows for j in columns]
    for _ in range(rounds):
        by = torch.randint(-reach, reach, (len(inner), 2), generator=generator, device=x.device)
        for (i, j), (down, right) in zip(inner, by.tolist(), strict=True):
            order[i * w + j] = order[(i + down) * w + j + right]
    x = x.flatten(2)[:, :, torch.tensor(order, device=x.device)].view_as(x)
    return gaussian_blur(x, sigma)


def motion_blur(x: Float[Tensor, "b c h w"], radius: int, sigma: float,
                generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Gaussian average along a line of random direction per image, within 45 degrees of level."""
    angle = (torch.rand(len(x), generator=generator, device=x.device) * 2 - 1) * math.pi / 4
    steps = torch.arange(2 * radius + 1.0, device=x.device)
    weights = (-steps.square() / (2 * sigma**2)).exp()
    out = torch.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        out += weight * _moved(x, step * angle.sin(), step * angle.cos())
    return out


def zoom_blur(x: Float[Tensor, "b c h w"], most: float,
              generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """The mean of the image and of its magnifications by 1.00, 1.01, …, below `most`."""
    factors = [1 + k / 100 for k in range(round((most - 1) * 100))]
    return (x + sum(zoom(x, f) for f in factors)) / (len(factors) + 1)


def zoom(x: Float[Tensor, "b c h w"], factor: float) -> Float[Tensor, "b c h w"]:
    """The middle of each image, magnified to the image's size."""
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def gaussian_blur(x: Float[Tensor, "b c h w"], sigma: float,
                  reach: float = 4) -> Float[Tensor, "b c h w"]:
    """Gaussian of `sigma` pixels, cut at `reach` sigma, borders mirrored; images (B, C, H, W)."""
    return smooth(x, sigma, max(1, round(reach * sigma)))


def _filter(x, kernel):
    radius = len(kernel) // 2
    for axis in (2, 3):
        x = x.index_select(axis, mirrored(x.shape[axis], radius, x.device))
    return F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def _moved(x, down, right):
    """Each image moved by its own, fractional, number of pixels, its border drawn out."""
    h, w = x.shape[2:]
    i = torch.arange(h, device=x.device)[None, :, None] - down[:, None, None]  # (B, H, 1)
    j = torch.arange(w, device=x.device)[None, None] - right[:, None, None]    # (B, 1, W)
    return sample(x, i.expand(-1, -1, w), j.expand(-1, h, -1))


def sample(x: Float[Tensor, "b c h w"], i: Float[Tensor, "b h w"],
           j: Float[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
    """Values at fractional rows i and columns j (B, H, W), bilinear, mirrored outside."""
    h, w = x.shape[2:]
    grid = torch.stack([(2 * j + 1) / w - 1, (2 * i + 1) / h - 1], -1)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
