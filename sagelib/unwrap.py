"""The network inside what a training loop wraps it in, and where it cannot be looked through."""
from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel or Lightning Fabric.

    A pass through it exchanges no gradient. A compiled network stays compiled.
    """
    inner: Any = eager(model)
    parallel = isinstance(inner, (DistributedDataParallel, DataParallel))
    if parallel or type(inner).__name__ == "_FabricModule":
        return unwrapped(inner.module)
    return model


def uncompiled(model: nn.Module) -> nn.Module:
    """`unwrapped`, and out of torch.compile: the modules that hooks are registered in."""
    return eager(unwrapped(model))


def eager(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, or the model itself if it is not compiled."""
    return cast("nn.Module", getattr(model, "_orig_mod", model))


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile was applied to the model, to what it wraps, or to a module inside."""
    return any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None
               for m in model.modules())


def check_network(model: nn.Module, prob: float) -> None:
    """One clear error for what cannot be looked through."""
    if not isinstance(model, nn.Module):
        raise TypeError("bind takes the network, an nn.Module that is called with the images "
                        f"alone, not a {type(model).__name__}: wrap it in one")
    scripted = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
    if any("running_mean" in name for m in scripted for name, _ in m.named_buffers()):
        raise ValueError("the BatchNorm of a scripted network cannot be held still: train it as "
                         "it was before torch.jit.script, or use torch.compile")
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    several = distributed and torch.distributed.get_world_size() > 1
    synchronised = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if several and synchronised and 0 < prob < 1:
        raise ValueError(f"prob is {prob}: each process would decide for itself, and "
                         "SyncBatchNorm would wait for those that do not mix; it must be 0 or 1")


def loader_worker() -> Any:
    """The DataLoader's worker that this process is, whose `seed` changes each epoch, or None."""
    return None if torch.compiler.is_compiling() else torch.utils.data.get_worker_info()
