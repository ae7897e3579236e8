"""How good a network is on clean images: accuracy and loss."""
import torch
import torch.nn.functional as F

from ..modes import evaluation_mode


@torch.no_grad()
def scores(net, batches):
    """Top-1 accuracy in percent and mean cross-entropy (nats) of `net`, in evaluation mode, over
    all batches.

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
def correct(net, batches):
    """Which images `net`, in evaluation mode, classifies right: bool (N,) on the CPU, in the order
    of the batches.

    `batches` gives (images, one-hot labels). Each module gets its own mode back.
    """
    with evaluation_mode(net):
        found = [net(x).float().argmax(1) == y.argmax(1) for x, y in batches]
    if not found:
        raise ValueError("there is no batch to evaluate on")
    return torch.cat(found).cpu()
