"""The short training that several chapters start from, and saliency maps; chapter 2 shows both."""
from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import methods, models
from .catalog import load
from .data.batches import Batches
from .data.dataset import Dataset
from .losses import bce
from .saliency import saliency
from .train import Recipe, fit

if TYPE_CHECKING:
    from jaxtyping import Float


def short_training(train: Dataset, epochs: int, seed: int = 0,
                   method: str = "vanilla") -> nn.Module:
    """A PreActResNet18 of width 8, trained on a small data set in batches of 50."""
    torch.manual_seed(seed)
    net = load(models, "preactresnet18", classes=len(train.classes), width=8)
    draws = torch.Generator().manual_seed(seed)
    fit(net, Batches(train, 50, generator=draws),
        load(methods, method).seed(seed), Recipe(epochs=epochs))
    return net


def saliency_maps(net: nn.Module, x: Float[Tensor, "b c h w"],
                  y: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 h w"]:
    """Equation 1 for images x (B, C, H, W) and labels y (B, K): (B, 1, H, W).

    The network is in the mode that it is in; a copy is run, so that training mode updates nothing.
    """
    z = x.detach().clone().requires_grad_()
    grad, = torch.autograd.grad(bce(deepcopy(net)(z), y), z)
    return saliency(grad)
