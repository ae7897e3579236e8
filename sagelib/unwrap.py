"""The network inside what a training loop wraps it in."""
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model):
    """The network inside DistributedDataParallel, DataParallel or Lightning Fabric: a pass through it exchanges no
    gradient. A compiled network stays compiled."""
    inner = eager(model)
    wrapped = isinstance(inner, (DistributedDataParallel, DataParallel)) or type(inner).__name__ == "_FabricModule"
    return unwrapped(inner.module) if wrapped else model


def uncompiled(model):
    """`unwrapped`, and out of torch.compile: the modules that hooks are registered in."""
    return eager(unwrapped(model))


def eager(model):
    """The module inside torch.compile's wrapper, still in any other wrapper; the model itself if it is not compiled."""
    return getattr(model, "_orig_mod", model)
