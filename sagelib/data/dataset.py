"""What every data set gives: images as bytes, labels, class names, and constants that normalise."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pixels import per_channel_tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8


@dataclass
class Dataset:
    """Images (N, 3, H, W), class indices (N,), class names; mean and std per channel in [0, 1]."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    masks: Bool[Tensor, "n 1 h w"] | None = None  # where the object is, for data sets that know

    def __post_init__(self) -> None:
        self._here = self._constants(self.images.device)

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with its tensors on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device),
                       masks=masks)

    def resized(self, height: int, width: int) -> Dataset:
        """The same data set with images of another size: bilinear, antialiased, in bytes."""
        if height < 1 or width < 1:
            raise ValueError(f"images of {height} x {width} pixels: both must be at least 1")
        size = (height, width)
        images = torch.cat([F.interpolate(part.cpu(), size, mode="bilinear", antialias=True)
                            for part in self.images.split(1000)]).to(self.images.device)
        masks = self.masks
        if masks is not None:
            masks = F.interpolate(masks.float(), size, mode="nearest-exact").bool()
        return replace(self, images=images, masks=masks)

    def normalised(self, images: UInt8[Tensor, "b 3 h w"] | None = None
                   ) -> Float[Tensor, "b 3 h w"]:
        """Images (B, 3, H, W) as floats, mean 0 and standard deviation 1 over the training set."""
        images = self.images if images is None else images
        mean, std = self.constants(images.device)
        return standardised(images, mean, std)

    def pixels(self, x: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
        """Normalised images (..., 3, H, W) back to [0, 1], for showing them."""
        mean, std = self.constants(x.device)
        return (x * std + mean).clamp(0, 1)

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """n images, the same number of each class to within one, chosen by `seed`."""
        counts = self.labels.bincount(minlength=len(self.classes))
        if not len(self.classes) <= n <= len(self):
            raise ValueError(f"a subset has {len(self.classes)} (one a class) to {len(self)} "
                             f"images, not {n}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        order = order.to(self.labels.device)
        rank = torch.empty_like(order)
        for k in range(len(counts)):  # rank of each image among those of its class, in random order
            mine = order[self.labels[order] == k]
            rank[mine] = torch.arange(len(mine), device=rank.device)
        place = rank[order] * len(counts) + self.labels[order]  # one of each class, then a second
        return self[order[place.argsort(stable=True)][:n].sort().values]

    def __getitem__(self, keep: Int[Tensor, " b"] | Bool[Tensor, " n"] | slice) -> Dataset:
        """The images that an index tensor or a slice picks, as a data set."""
        masks = None if self.masks is None else self.masks[keep]
        return replace(self, images=self.images[keep], labels=self.labels[keep], masks=masks)

    def constants(self, device: torch.device | str) -> tuple[Float[Tensor, "3 1 1"],
                                                             Float[Tensor, "3 1 1"]]:
        """Mean and standard deviation of each channel, (3, 1, 1), on this device."""
        return self._here if device == self.images.device else self._constants(device)

    def _constants(self, device):
        return per_channel_tensor(self.mean, device), per_channel_tensor(self.std, device)


def standardised(images: UInt8[Tensor, "b 3 h w"], mean: Float[Tensor, "3 1 1"],
                 std: Float[Tensor, "3 1 1"]) -> Float[Tensor, "b 3 h w"]:
    """Images (B, 3, H, W) of bytes as floats, less the mean, over the standard deviation."""
    return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


def channel_mean_std(images: UInt8[Tensor, "n 3 h w"]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel, in [0, 1]; 1/255 where a channel is constant."""
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in images.split(1000):
        part = part.double() / 255
        total += part.sum((0, 2, 3))
        squares += part.square().sum((0, 2, 3))
    count = images.numel() / 3
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
