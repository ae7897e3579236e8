"""What a few-shot data set gives: three data sets that share no class and are normalised as one."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .dataset import Dataset, channel_mean_std

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

    Part = tuple[UInt8[Tensor, "_ 3 h w"], Int[Tensor, " _"], Sequence[str]]


class FewShot(NamedTuple):
    """Base classes to train on, other classes to choose the epoch by, and new ones for the test."""

    train: Dataset
    val: Dataset
    test: Dataset

    @classmethod
    def of(cls, parts: Iterable[Part]) -> FewShot:
        """The data sets of three parts: images (N, 3, H, W), class indices (N,), class names.

        The first gives mean and standard deviation. ValueError if two share a class name.
        """
        parts = list(parts)
        mean, std = channel_mean_std(parts[0][0])
        found = cls(*(Dataset(images, labels, tuple(names), mean, std)
                      for images, labels, names in parts))
        names = [name for part in found for name in part.classes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the class {twice[0]!r} is in two of train, val and test; they must "
                             "share none")
        return found


def by_class(images: UInt8[Tensor, "n 3 h w"], labels: Int[Tensor, " n"], names: Sequence[str],
             chosen: Sequence[str]) -> Part:
    """The images of the chosen classes, with their labels as class indices in that order."""
    new = torch.full((len(names),), -1)
    new[[list(names).index(name) for name in chosen]] = torch.arange(len(chosen))
    keep = new[labels] >= 0
    return images[keep], new[labels[keep]], tuple(chosen)
