"""Weather: snow, frost, fog and brightness, of images in [0, 1]. Severities: `__init__.py`."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...pixels import per_channel_tensor
from .blur import motion_blur, zoom

if TYPE_CHECKING:
    from jaxtyping import Float


def snow(
    x: Float[Tensor, "b 3 h w"], mean: float, std: float, magnify: float, threshold: float,
    radius: int, sigma: float, keep: float, generator: torch.Generator | None,
) -> Float[Tensor, "b 3 h w"]:
    """Flakes over a paler image (B, 3, H, W), twice, once upside down.

    They are noise above a threshold, magnified and streaked.
    """
    b, _, h, w = x.shape
    flakes = mean + std * torch.randn(b, 1, h, w, generator=generator, device=x.device)
    flakes = zoom(flakes, magnify)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    # it falls
    flakes = motion_blur(flakes.transpose(2, 3), radius, sigma, generator).transpose(2, 3)
    grey = (x * per_channel_tensor((0.299, 0.587, 0.114), x.device)).sum(1, keepdim=True)
    pale = keep * x + (1 - keep) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + flakes + flakes.flip(2, 3)


def frost(x: Float[Tensor, "b 3 h w"], keep: float, ice: float,
          generator: torch.Generator | None) -> Float[Tensor, "b 3 h w"]:
    """Ice over images (B, 3, H, W), brighter where it is thick.

    Its branching crystals are where cloudy noise crosses zero.
    """
    clouds = fractal(x, 2.2, generator) - 0.5
    veins = (1 - (clouds.abs() * 12).clamp(max=1)) + 0.6 * fractal(x, 1.6, generator)
    tint = per_channel_tensor((0.85, 0.95, 1.0), x.device)
    return keep * x + ice * veins.clamp(0, 1) * tint


def fog(x: Float[Tensor, "b c h w"], thickness: float, decay: float,
        generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) plus a cloud, the sum made as bright as the image was."""
    top = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * fractal(x, decay, generator)) * top / (top + thickness)


def fractal(x: Float[Tensor, "b c h w"], decay: float,
            generator: torch.Generator | None) -> Float[Tensor, "b 1 h w"]:
    """Diamond-square clouds (B, 1, H, W) in [0, 1] for images (B, C, H, W).

    Each finer level of detail is `decay` times weaker.
    """
    b, _, h, w = x.shape
    size = 1 << max(3, math.ceil(math.log2(max(h, w))))
    z = torch.zeros(b, 1, size, size, device=x.device)
    step, wibble = size, 100.0

    def around(mean):
        u = torch.rand(mean.shape, generator=generator, device=x.device)
        return mean + wibble * (2 * u - 1)

    while step >= 2:
        half = step // 2
        corner = z[:, :, ::step, ::step]
        rows = corner + corner.roll(-1, 2)
        z[:, :, half::step, half::step] = around((rows + rows.roll(-1, 3)) / 4)  # squares
        centre = z[:, :, half::step, half::step]
        z[:, :, ::step, half::step] = around(
            (centre + centre.roll(1, 2) + corner + corner.roll(-1, 3)) / 4)
        z[:, :, half::step, ::step] = around(
            (centre + centre.roll(1, 3) + corner + corner.roll(-1, 2)) / 4)
        step, wibble = half, wibble / decay
    z = z - z.amin((2, 3), keepdim=True)
    return (z / z.amax((2, 3), keepdim=True).clamp(min=1e-12))[:, :, :h, :w]


def brightness(x: Float[Tensor, "b c h w"], more: float,
               generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """HSV's value, the largest channel, raised by `more` up to 1, and the others in proportion."""
    top = x.amax(1, keepdim=True)
    raised = (top + more).clamp(0, 1)
    return torch.where(top > 0, x * (raised / top.clamp(min=1e-12)), raised)
