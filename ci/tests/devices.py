"""A device that is not there: another kind than the CPU, with values, without float64, as a Mac's
GPU is.

Its tensors hold a tensor of the CPU. Every operation on them runs there; float64 on the device, and
an operation that mixes its tensors with the CPU's, raise the errors that a real device raises.
"""
import contextlib

import torch
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

# a kind of device that PyTorch knows everywhere and this project uses nowhere
FAR = torch.device("lazy", 0)
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class FromNumbers(TorchFunctionMode):
    """Numbers of the host, as a tensor on the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device"):
            kwargs = dict(kwargs)
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class FarTensor(torch.Tensor):
    """A tensor on the device; `near` is its values on the CPU."""

    @staticmethod
    def __new__(cls, near):
        if near.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the device has no {near.dtype}")
        out = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=FAR)
        out.near = near
        return out

    def tolist(self):
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        with FarDevice():
            return function(*args, **(kwargs or {}))


class FarDevice(TorchDispatchMode):
    """A context in which the device is there: its tensors are made by device=FAR and by
    .to(FAR)."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [z for z in tree_leaves((args, kwargs)) if isinstance(z, torch.Tensor)]
        far = [z for z in given if isinstance(z, FarTensor)]
        if function.namespace == "sagelib":  # its own operations are looked into
            with FromNumbers(), self:
                return OPDEFS[function._schema.name]._init_fn(*args, **kwargs)
        if far and function not in COPIES and any(
                z.ndim for z in given if not isinstance(z, FarTensor)):
            raise RuntimeError(f"{function}: expected all tensors to be on the same device")
        device = kwargs.get("device")
        near_args, near_kwargs = tree_map_only(FarTensor, lambda z: z.near, (args, kwargs))
        if device is not None:
            near_kwargs = near_kwargs | {"device": torch.device("cpu")}
        out = function(*near_args, **near_kwargs)
        there = torch.device(device).type == FAR.type if device is not None else bool(far)
        if not there:
            return out
        out = tree_map_only(torch.Tensor, FarTensor, out)
        return return_and_correct_aliasing(function, args, kwargs, out) if far else out


class Reads(TorchDispatchMode):
    """A context, inside that of the device, that counts what the host reads from it: numbers,
    tensors."""

    def __init__(self):
        super().__init__()
        self.numbers = self.tensors = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if isinstance(args[0] if args else None, FarTensor):
            self.numbers += function is torch.ops.aten._local_scalar_dense.default
            device = torch.device(kwargs.get("device") or FAR)
            self.tensors += function is torch.ops.aten._to_copy.default and device.type == "cpu"
        return function(*args, **kwargs)


@contextlib.contextmanager
def far_device():
    """A context in which the device FAR is there."""
    with FromNumbers(), FarDevice():
        yield FAR
