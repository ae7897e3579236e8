"""The 15 common corruptions at 5 severities, for whole batches on the device.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, https://arxiv.org/abs/1903.12261. Kinds and severities are those of their
CIFAR-10-C; they are stated for images of 32 x 32 and used as they are for others, except
elastic_transform and the fractal of fog, which grow with the image. Differences: random parts have
other draws, so images differ from the published files (which `published` reads); frost grows
crystals from noise instead of using photographs of ice; JPEG is computed as blocks of cosines
without the file.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import blur, digital, noise, weather
from .published import check_severity, published

if TYPE_CHECKING:
    from jaxtyping import UInt8

__all__ = ["NAMES", "SEVERITIES", "TABLE", "corrupt", "published"]

SEVERITIES = range(1, 6)
TABLE = {  # the five severities of each kind
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
             (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
             (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
                          (0.1, 0.03, 0.03)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
NAMES = tuple(TABLE)


def corrupt(images: UInt8[Tensor, "b 3 h w"], name: str, severity: int,
            generator: torch.Generator | None) -> UInt8[Tensor, "b 3 h w"]:
    """Images uint8 (B, 3, H, W) with one corruption, uint8.

    The random part is drawn from `generator`, on the images' device.
    """
    if name not in TABLE:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(NAMES)}")
    check_severity(severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"corruptions take images uint8 (B, 3, H, W), not {images.dtype} "
                         f"{tuple(images.shape)}")
    level = TABLE[name][severity - 1]
    amounts = level if isinstance(level, tuple) else (level,)
    changed = _FUNCTIONS[name](images.float() / 255, *amounts, generator)
    return (changed.clamp(0, 1) * 255).byte()  # cut, not rounded, as in the published images


_FUNCTIONS = {name: getattr(group, name) for group in (noise, blur, weather, digital)
              for name in NAMES if hasattr(group, name)}
