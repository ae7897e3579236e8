"""Noise: gaussian, shot and impulse, of images in [0, 1]. Severities, source: `__init__.py`."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def gaussian_noise(x: Float[Tensor, "b c h w"], sigma: float,
                   generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) plus a normal draw of standard deviation sigma for each value."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


def shot_noise(x: Float[Tensor, "b c h w"], photons: float,
               generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Each value counted in photons, of which white has so many: a Poisson draw."""
    return torch.poisson(x * photons, generator=generator) / photons


def impulse_noise(x: Float[Tensor, "b c h w"], amount: float,
                  generator: torch.Generator | None) -> Float[Tensor, "b c h w"]:
    """Salt and pepper: each value is 0 or 1 with a chance of `amount`, evenly."""
    u = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.where(u < amount / 2, 0.0, torch.where(u < amount, 1.0, x))
