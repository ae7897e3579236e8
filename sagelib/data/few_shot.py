"""What a few-shot data set gives: three data sets that share no class, normalised alike."""
from typing import NamedTuple

import torch

from .dataset import Dataset, channel_mean_std


class FewShot(NamedTuple):
    """Base classes to train on, other classes to choose the epoch by, and new ones to be tried
    on."""

    train: Dataset
    val: Dataset
    test: Dataset

    @classmethod
    def of(cls, parts):
        """From (images uint8 (N, 3, H, W), labels (N,), class names) of each; the first gives mean
        and std."""
        parts = list(parts)
        scale = channel_mean_std(parts[0][0])
        found = cls(*(Dataset(images, labels, tuple(names), *scale)
                      for images, labels, names in parts))
        names = [name for part in found for name in part.classes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the class {twice[0]!r} is in two of train, val and test; they must "
                             "share none")
        return found


def by_class(images, labels, names, chosen):
    """The images of the chosen classes, with their labels as class indices in that order."""
    new = torch.full((len(names),), -1)
    new[[list(names).index(name) for name in chosen]] = torch.arange(len(chosen))
    keep = new[labels] >= 0
    return images[keep], new[labels[keep]], tuple(chosen)
