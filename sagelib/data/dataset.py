"""What every data set gives: images as bytes, labels, class names, and the constants that normalise
them."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..pixels import per_channel_tensor


@dataclass
class Dataset:
    """images uint8 (N, 3, H, W), labels int64 (N,), class names; mean and std of each channel in
    [0, 1]."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    # bool (N, 1, H, W): where the object is, for data sets that know
    masks: torch.Tensor | None = None

    def __post_init__(self):
        self._here = self._constants(self.images.device)

    def __len__(self):
        return len(self.labels)

    def to(self, device):
        """The same data set with its tensors on another device."""
        moved = {
            k: getattr(self, k).to(device)
            for k in ("images", "labels", "masks")
            if getattr(self, k) is not None
        }
        return replace(self, **moved)

    def normalised(self, images=None):
        """Images uint8 (B, 3, H, W) as floats with mean 0 and standard deviation 1 over the
        training set."""
        images = self.images if images is None else images
        mean, std = (
            self._here if images.device == self.images.device else self._constants(images.device)
        )
        return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def pixels(self, x):
        """Normalised images (B, 3, H, W) back to [0, 1], for showing them."""
        mean, std = self._constants(x.device)
        return (x * std + mean).clamp(0, 1)

    def subset(self, n, seed=0):
        """n images, the same number of each class to within one, chosen by `seed`."""
        counts = self.labels.bincount(minlength=len(self.classes))
        if not len(self.classes) <= n <= len(self):
            raise ValueError(f"a subset has {len(self.classes)} (one a class) to {len(self)} "
                             f"images, not {n}")
        order = torch.randperm(len(self),
                               generator=torch.Generator().manual_seed(seed)).to(self.labels.device)
        rank = torch.empty_like(order)
        for k in range(len(counts)):  # rank of each image among those of its class, in random order
            mine = order[self.labels[order] == k]
            rank[mine] = torch.arange(len(mine), device=rank.device)
        keep = order[(rank[order] * len(counts) +
                      self.labels[order]).argsort(stable=True)][:n].sort().values
        return self[keep]

    def __getitem__(self, keep):
        """The images that an index tensor or a slice picks, as a data set."""
        masks = None if self.masks is None else self.masks[keep]
        return replace(self, images=self.images[keep], labels=self.labels[keep], masks=masks)

    def _constants(self, device):
        return per_channel_tensor(self.mean, device), per_channel_tensor(self.std, device)


def channel_mean_std(images):
    """Mean and standard deviation of each channel of uint8 (N, 3, H, W), in [0, 1]; 1/255 where it
    is flat."""
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in images.split(1000):
        part = part.double() / 255
        total += part.sum((0, 2, 3))
        squares += part.square().sum((0, 2, 3))
    mean = total / (images.numel() / 3)
    std = (squares / (images.numel() / 3) - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
