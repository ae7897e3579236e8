"""RandAugment: E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical Automated Data
Augmentation with a Reduced Search Space", NeurIPS 2020. https://arxiv.org/abs/1909.13719

torchvision's, applied to each image's pixels; the label stays. The difference: torchvision draws
from torch's global generator, which is lent a seed of the method's own here and gets its state
back.
"""
from dataclasses import dataclass

import torch

from ..method import Method, Mixed, check_pairs, per_channel, whole
from ..pixels import from_pixels, to_pixels


@torch.library.custom_op("sagelib::rand_augment", mutates_args=())
def augment(images: torch.Tensor, ops: int, magnitude: int, seed: int) -> torch.Tensor:
    """Bytes (B, 1 or 3, H, W), each image with `ops` random operations of that magnitude, 0 to
    30."""
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


def mix(x, y, seed, ops=2, magnitude=9, mean=0.0, std=1.0):
    """Images (B, C, H, W), normalised by mean and std, each with random operations on its pixels;
    labels as they are.

    `seed` settles them. Where C is neither 1 nor 3, the operations see the first three channels and
    leave the rest.
    """
    check_pairs(x, y, torch.arange(len(x), device=x.device))
    colours = x.shape[1] if x.shape[1] in (1, 3) else 3 if x.shape[1] > 3 else 1
    pixels = to_pixels(x.detach(), mean, std)
    levels = (pixels[:, :colours] * 255).round().clamp(0, 255).byte()
    changed = torch.cat([augment(levels, ops, magnitude, seed).float() / 255, pixels[:, colours:]],
                        1)
    return Mixed(from_pixels(changed, mean, std).to(x.dtype), y.clone())


@dataclass(kw_only=True)
class RandAugment(Method):
    """ops operations of torchvision's magnitude (0 to 30) for each image; mean, std: of the
    normalised images."""

    ops: int = whole(2, 0, 20)
    magnitude: int = whole(9, 0, 30)
    mean: float | tuple = per_channel(0.0, -100)
    std: float | tuple = per_channel(1.0, 0)

    def mix(self, x, y, net=None):
        return mix(x, y, self.draw_seed(), self.ops, self.magnitude, self.mean, self.std)


build = RandAugment
