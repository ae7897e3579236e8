"""How good a network is on clean images: accuracy and loss."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modes import evaluation_mode

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    # images and one-hot labels
    LabelledBatches = Iterable[tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]]


@torch.no_grad()
def scores(net: nn.Module, batches: LabelledBatches) -> dict[str, float]:
    """Top-1 accuracy in percent and mean cross-entropy in nats, of `net` in evaluation mode.

    `batches` gives (images, one-hot labels). Each module gets its own mode back. The two numbers
    are read from the device once, at the end.
    """
    right, loss, count = 0, 0, 0
    with evaluation_mode(net):
        for x, y in batches:
            logits = net(x).float()
            right = right + (logits.argmax(1) == y.argmax(1)).sum()
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            count += len(x)
    if not count:
        raise ValueError("there is no batch to evaluate on")
    return {"accuracy": 100 * float(right) / count, "loss": float(loss) / count}


@torch.no_grad()
def correct(net: nn.Module, batches: LabelledBatches) -> Bool[Tensor, " n"]:
    """Which images `net`, in evaluation mode, classifies right: bool (N,) on the CPU, in order.

    `batches` gives (images, one-hot labels). Each module gets its own mode back.
    """
    with evaluation_mode(net):
        found = [net(x).float().argmax(1) == y.argmax(1) for x, y in batches]
    if not found:
        raise ValueError("there is no batch to evaluate on")
    return torch.cat(found).cpu()
