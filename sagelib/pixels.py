"""Normalised images to pixels and back: for data sets, attacks and methods that use colours."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

PerChannel = float | Sequence[float] | np.ndarray | Tensor  # one for all, or for each channel


def per_channel_tensor(values: PerChannel, device: torch.device | str) -> Float[Tensor, "#c 1 1"]:
    """One number or one for each channel -> (1, 1, 1) or (C, 1, 1), float32, beside images."""
    if isinstance(values, (int, float)):
        values = [values]
    if not isinstance(values, Tensor):
        values = torch.stack([torch.full((), float(v), device=device) for v in values])
    return values.to(device, torch.float32).flatten()[:, None, None]


def to_pixels(x: Float[Tensor, "b c h w"], mean: PerChannel,
              std: PerChannel) -> Float[Tensor, "b c h w"]:
    """Normalised images (B, C, H, W) back to [0, 1], float32."""
    mean, std = per_channel_tensor(mean, x.device), per_channel_tensor(std, x.device)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, x.shape[1]):
            raise ValueError(f"{name} has {len(values)} numbers, the images {x.shape[1]} "
                             "channels: give one for each")
    return x.float() * std + mean


def from_pixels(p: Float[Tensor, "b c h w"], mean: PerChannel,
                std: PerChannel) -> Float[Tensor, "b c h w"]:
    """Images (B, C, H, W) in [0, 1] normalised, float32: `to_pixels` backwards."""
    return (p.float() - per_channel_tensor(mean, p.device)) / per_channel_tensor(std, p.device)
