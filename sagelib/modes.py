"""Modes for a while: a network's evaluation mode, BatchNorm that updates nothing, arithmetic
without autocast.

Each module's own flag is set and restored, never the whole network's: a layer that the user froze
stays frozen.
"""
import contextlib

import torch

BATCHNORM = torch.nn.modules.batchnorm._BatchNorm  # SyncBatchNorm too


@contextlib.contextmanager
def evaluation_mode(net, kinds=torch.nn.Module):
    """A context in which the modules of these kinds are in evaluation mode; those that were
    training train again."""
    training = [m for m in net.modules() if m.training and isinstance(m, kinds)]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


def batchnorm_mode(net, bn):
    """A context for BatchNorm: "train" is as usual, "batch" normalises with the batch and updates
    nothing, "eval" normalises with the running statistics."""
    if bn == "eval":
        return evaluation_mode(net, BATCHNORM)
    return batch_statistics(net) if bn == "batch" else contextlib.nullcontext()


def without_autocast(device):
    """A context in which nothing on this device is cast to half precision, whatever autocast is on
    around it."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


@contextlib.contextmanager
def batch_statistics(net):
    """A context in which every BatchNorm that trains uses the batch's statistics, as usual, and
    updates none.

    A lazy one makes its running statistics in its first forward, before they are switched off.
    """
    kept = [
        m for m in net.modules()
        if isinstance(m, BATCHNORM) and m.training and m.track_running_stats
    ]
    lazy = [m for m in kept if getattr(m, "has_uninitialized_params", bool)()]
    # after the lazy layer's own
    hooks = [m.register_forward_pre_hook(_without_running_statistics) for m in lazy]
    try:
        for m in kept:
            if m not in lazy:
                m.track_running_stats = False
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for m in kept:
            m.track_running_stats = True


def _without_running_statistics(norm, _):
    norm.track_running_stats = False
