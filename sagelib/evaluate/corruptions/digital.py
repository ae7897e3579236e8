"""Digital: contrast, elastic transform, pixelation and JPEG, of images in [0, 1].

Severities and source: `__init__.py`.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .blur import gaussian_blur, sample

if TYPE_CHECKING:
    from jaxtyping import Float

LUMA = ((16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99))
# 99 everywhere else
CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))


def contrast(x: Float[Tensor, "b c h w"], factor: float,
             generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W), each channel drawn towards its mean over the image."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(
    x: Float[Tensor, "b c h w"], alpha: float, sigma: float, affine: float,
    generator: torch.Generator | None,
) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) after a small random affine map, then a smooth random displacement.

    Amounts are shares of the image's side.
    """
    b, _, h, w = x.shape
    side = min(h, w)
    # about the middle
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, -1]], device=x.device) * (side // 3)
    u = torch.rand(b, 3, 2, generator=generator, device=x.device)
    shaken = corners + (u * 2 - 1) * affine * side
    ones = torch.ones(b, 3, 1, device=x.device)
    # a place -> where it was: (B, 3, 2)
    matrix = torch.linalg.solve(torch.cat([shaken, ones], 2), corners.expand(b, 3, 2))
    i = torch.arange(h, device=x.device) - (h - 1) / 2
    j = torch.arange(w, device=x.device) - (w - 1) / 2
    one = torch.ones(h, w, device=x.device)
    places = torch.stack([i[:, None].expand(h, w), j.expand(h, w), one], -1)  # (H, W, 3)
    source = torch.einsum("hwk,bkc->bhwc", places, matrix)
    if alpha:
        noise = torch.rand(b, 2, h, w, generator=generator, device=x.device) * 2 - 1
        smooth = gaussian_blur(noise, sigma * side, reach=3)
        source = source + alpha * side * smooth.permute(0, 2, 3, 1)  # (B, H, W, 2)
    return sample(x, source[..., 0] + (h - 1) / 2, source[..., 1] + (w - 1) / 2)


def pixelate(x: Float[Tensor, "b c h w"], share: float,
             generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) shrunk to `share` of their side by area, and back to size: blocks."""
    small = F.interpolate(x, [max(1, int(n * share)) for n in x.shape[2:]], mode="area")
    return F.interpolate(small, x.shape[2:], mode="nearest-exact")


def jpeg_compression(x: Float[Tensor, "b 3 h w"], quality: int,
                     generator: torch.Generator | None) -> Float[Tensor, "b 3 h w"]:
    """What JPEG at this quality leaves of images (B, 3, H, W).

    Colours at half size, blocks of 8 x 8 in rounded cosines. Nothing is random.
    """
    h, w = x.shape[2:]
    rgb = F.pad((x * 255).round(), (0, -w % 16, 0, -h % 16), mode="replicate")
    y, cb, cr = _luma_chroma(rgb)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    y = _through_cosines(y, _quantised(LUMA, scale, x.device))
    table = torch.full((8, 8), 99.0)
    table[:4, :4] = torch.tensor(CHROMA, dtype=torch.float32)
    half = _quantised(table.tolist(), scale, x.device)
    cb, cr = _at_half_size(cb, half), _at_half_size(cr, half)
    out = torch.cat([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return out.round()[:, :, :h, :w] / 255


def _luma_chroma(rgb):
    r, g, b = rgb.split(1, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y.round(), ((b - y) / 1.772 + 128).round(), ((r - y) / 1.402 + 128).round()


def _at_half_size(colour, table):
    """A colour (B, 1, H, W) through cosines at half its size, and back; centred on 0."""
    small = _through_cosines(F.avg_pool2d(colour, 2).round(), table)
    return F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False) - 128


def _quantised(table, scale, device):
    table = torch.tensor(table, dtype=torch.float32, device=device)
    return ((table * scale + 50) / 100).floor().clamp(1, 255)


def _through_cosines(z, table):
    """Bytes (B, 1, H, W) after rounding the cosines of 8 x 8 blocks to multiples of `table`."""
    b, _, h, w = z.shape
    k = torch.arange(8.0, device=z.device)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    blocks = (z - 128).reshape(b, h // 8, 8, w // 8, 8).transpose(2, 3)  # (B, H/8, W/8, 8, 8)
    coefficients = ((basis @ blocks @ basis.T) / table).round() * table
    blocks = (basis.T @ coefficients @ basis).transpose(2, 3).reshape(b, 1, h, w)
    return (blocks + 128).round().clamp(0, 255)
