"""The data, the short training and the saliency maps that several chapters start from.

Chapter 2 shows the training.
"""
from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import datasets, methods, models
from .catalog import defaults, load
from .data.batches import Batches
from .data.dataset import Dataset
from .datasets.photographs import SURROUNDINGS
from .losses import bce
from .saliency import saliency
from .train import Recipe, fit

if TYPE_CHECKING:
    from jaxtyping import Float


def small_sets(dataset: str, root: str | Path | None, images: int,
               seed: int = 0) -> tuple[Dataset, Dataset]:
    """Training set of so many images, as many of each class, and test set of a data set.

    `root`: where the data set is; the built-in ones need none. ValueError for a few-shot data set,
    whose test set has other classes.
    """
    if "train" in defaults(datasets, dataset):  # built in, made in any number
        return load(datasets, dataset, train=images)
    found = load(datasets, dataset, root=root)
    if len(found) != 2:
        raise ValueError(f"{dataset} is for few-shot learning, its test set has other classes than "
                         "its training set; take shapes, photographs, cifar10, cifar100 or folder")
    train, test = found
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    return train.subset(min(images, len(train)), seed), test[order]


def short_training(train: Dataset, epochs: int, seed: int = 0, method: str = "vanilla",
                   lr: float = 0.2, shrink: int = 1) -> nn.Module:
    """A PreActResNet18 of width 8, trained on a small data set in batches of 50.

    shrink: it sees the means of squares of so many pixels a side.
    """
    torch.manual_seed(seed)
    net = load(models, "preactresnet18", classes=len(train.classes), width=8)
    if shrink > 1:
        net = nn.Sequential(nn.AvgPool2d(shrink), net)
    draws = torch.Generator().manual_seed(seed)
    fit(net, Batches(train, 50, padding=2 * shrink, generator=draws),
        load(methods, method).seed(seed), Recipe(epochs=epochs, lr=lr))
    return net


def photographs(epochs: int = 10, seed: int = 0) -> tuple[Dataset, nn.Module]:
    """Test crops of photographs, 96 x 96, each with an object, and a network trained on others.

    The network is in evaluation mode. It sees means of 3 x 3 pixels, so that it trains as fast as
    on images of 32 x 32. The data set is `datasets/photographs.py`.
    """
    train, test = load(datasets, "photographs", size=96)
    net = short_training(train, epochs, seed, lr=0.05, shrink=3).eval()
    return test[test.labels != test.classes.index(SURROUNDINGS)], net


def object_masks(data: Dataset) -> Float[Tensor, "n 1 h w"]:
    """Masks of the objects, (N, 1, H, W), 0 or 1. All of an image counts where no mask is known."""
    if data.masks is None:
        return torch.ones_like(data.images[:, :1], dtype=torch.float32)
    empty = ~data.masks.flatten(1).any(1)
    return (data.masks | empty[:, None, None, None]).float()


def saliency_maps(net: nn.Module, x: Float[Tensor, "b c h w"],
                  y: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 h w"]:
    """Equation 1 for images x (B, C, H, W) and labels y (B, K): (B, 1, H, W).

    The network is in the mode that it is in; a copy is run, so that training mode updates nothing.
    """
    z = x.detach().clone().requires_grad_()
    grad, = torch.autograd.grad(bce(deepcopy(net)(z), y), z)
    return saliency(grad)
