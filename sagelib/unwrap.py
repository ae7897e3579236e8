"""The network inside what a training loop wraps it in."""
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrapped(model):
    """The network inside DistributedDataParallel, DataParallel or Lightning Fabric: a pass through it exchanges no
    gradient. A compiled network stays compiled."""
    inner = getattr(model, "_orig_mod", model)
    wrapped = isinstance(inner, (DistributedDataParallel, DataParallel)) or type(inner).__name__ == "_FabricModule"
    return unwrapped(inner.module) if wrapped else model


def uncompiled(model):
    """`unwrapped`, and out of torch.compile: the modules that hooks are registered in."""
    net = unwrapped(model)
    return getattr(net, "_orig_mod", net)
