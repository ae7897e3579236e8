"""The network inside what a training loop wraps it in, and where it cannot be looked through."""
import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model):
    """The network inside DistributedDataParallel, DataParallel or Lightning Fabric: a pass through
    it exchanges no gradient. A compiled network stays compiled."""
    inner = eager(model)
    wrapped = isinstance(
        inner, (DistributedDataParallel, DataParallel)) or type(inner).__name__ == "_FabricModule"
    return unwrapped(inner.module) if wrapped else model


def uncompiled(model):
    """`unwrapped`, and out of torch.compile: the modules that hooks are registered in."""
    return eager(unwrapped(model))


def eager(model):
    """The module inside torch.compile's wrapper, still in any other wrapper; the model itself if it
    is not compiled."""
    return getattr(model, "_orig_mod", model)


def check_network(model, prob):
    """One clear error for what cannot be looked through."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError("bind takes the network, an nn.Module that is called with the images "
                        f"alone, not a {type(model).__name__}: wrap it in one")
    scripted = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
    if any("running_mean" in name for m in scripted for name, _ in m.named_buffers()):
        raise ValueError("the BatchNorm of a scripted network cannot be held still: train it as "
                         "it was before torch.jit.script, or use torch.compile")
    several = torch.distributed.is_available() and torch.distributed.is_initialized() and (
        torch.distributed.get_world_size() > 1)
    if several and 0 < prob < 1 and any(
            isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules()):
        raise ValueError(f"prob is {prob}: each process would decide for itself, and "
                         "SyncBatchNorm would wait for those that do not mix; it must be 0 or 1")


def loader_worker():
    """The DataLoader's worker that this process is, with a seed of its own in each epoch, or None;
    none compiles."""
    return None if torch.compiler.is_compiling() else torch.utils.data.get_worker_info()
