"""Contexts: evaluation mode, BatchNorm that updates nothing, arithmetic without autocast.

Each module's own flag is set and restored, never the whole network's: a layer that the user froze
stays frozen.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

BATCHNORM = nn.modules.batchnorm._BatchNorm  # SyncBatchNorm too


@contextlib.contextmanager
def evaluation_mode(net: nn.Module, kinds: type[nn.Module] = nn.Module) -> Iterator[None]:
    """A context in which the modules of these kinds are in evaluation mode, then as before."""
    training = [m for m in net.modules() if m.training and isinstance(m, kinds)]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


def batchnorm_mode(net: nn.Module, bn: str) -> contextlib.AbstractContextManager[None]:
    """A context for BatchNorm, by name.

    "train" is as usual, "batch" normalises with the batch and updates nothing, "eval" normalises
    with the running statistics.
    """
    if bn == "eval":
        return evaluation_mode(net, BATCHNORM)
    return batch_statistics(net) if bn == "batch" else contextlib.nullcontext()


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which autocast casts nothing on this device to half precision."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


@contextlib.contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """A context in which BatchNorm in training uses the batch's statistics and updates none.

    A lazy one makes its running statistics in its first forward, before they are switched off.
    """
    norms = [m for m in net.modules() if isinstance(m, BATCHNORM)]
    kept = [m for m in norms if m.training and m.track_running_stats]
    lazy = [m for m in kept if any(map(is_lazy, (*m.parameters(), *m.buffers())))]
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
