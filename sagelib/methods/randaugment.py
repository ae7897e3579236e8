"""RandAugment: E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical Automated Data
Augmentation with a Reduced Search Space", NeurIPS 2020. https://arxiv.org/abs/1909.13719

torchvision's, applied to each image's pixels; the label stays. The difference: torchvision draws
from torch's global generator, which is seeded from the method's generator here and gets its state
back.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..method import Method, Mixed, check_pairs, per_channel, whole
from ..pixels import PerChannel, from_pixels, to_pixels

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


@torch.library.custom_op("sagelib::rand_augment", mutates_args=(),
                         schema="(Tensor images, SymInt ops, SymInt magnitude, SymInt seed)"
                                " -> Tensor")
def augment(images: UInt8[Tensor, "b c h w"], ops: int, magnitude: int,
            seed: int) -> UInt8[Tensor, "b c h w"]:
    """Bytes (B, 1 or 3, H, W), each image with `ops` random operations, magnitude 0 to 30."""
    try:
        from torchvision.transforms import RandAugment
    except ImportError as error:
        raise ImportError("RandAugment is torchvision's: pip install torchvision") from error
    change = RandAugment(ops, magnitude)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([change(image) for image in images])


@augment.register_fake
def _(images, ops, magnitude, seed):
    return torch.empty_like(images)


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], seed: int, ops: int = 2,
        magnitude: int = 9, mean: PerChannel = 0.0, std: PerChannel = 1.0) -> Mixed:
    """Images (B, C, H, W) with random operations on their pixels; labels (B, K) as they are.

    `seed` determines the operations. mean, std: of the normalised images. Where C is neither 1 nor
    3, the operations see the first three channels (of two, the first) and leave the rest.
    """
    check_pairs(x, y)
    colours = 3 if x.shape[1] >= 3 else 1
    pixels = to_pixels(x.detach(), mean, std)  # (B, C, H, W)
    levels = (pixels[:, :colours] * 255).round().clamp(0, 255).byte()
    changed = augment(levels, ops, magnitude, seed).float() / 255
    images = from_pixels(torch.cat([changed, pixels[:, colours:]], 1), mean, std)
    return Mixed(images.to(x.dtype), y.clone())


@dataclass(kw_only=True)
class RandAugment(Method):
    """`ops` operations of `magnitude` (0 to 30) for each image.

    mean, std: of the normalised images, to get back to pixels.
    """

    ops: int = whole(2, 0, 20)
    magnitude: int = whole(9, 0, 30)
    mean: float | Sequence[float] = per_channel(0.0, -100)
    std: float | Sequence[float] = per_channel(1.0, 0)

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        return mix(x, y, self.draw_seed(), self.ops, self.magnitude, self.mean, self.std)


build = RandAugment
