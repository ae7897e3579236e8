"""Pickles of plain numpy arrays, dicts, lists, text and numbers, opened without executing anything.

No name in the file is imported. The few that arrays need stand for functions here, which build
arrays of numbers or text from bytes: a forged type, with objects or fields in it, could otherwise
hold addresses of its author's choice.
"""
from __future__ import annotations

import collections
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


class _Kind:
    """Stands for a dtype while a pickle is read."""

    def __init__(self, name):
        if not isinstance(name, str) or np.dtype(name).kind not in "biufSU":
            raise pickle.UnpicklingError(f"an array of {name!r} is no plain data")
        self.plain = np.dtype(name)

    def __setstate__(self, state):
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array with fields is no plain data")
        self.plain = self.plain.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that is filled when its state comes, with a plain dtype and bytes."""

    def __setstate__(self, state):
        _, shape, kind, fortran, raw = state
        super().__setstate__((1, shape, kind.plain, fortran, raw))


def _dtype(name, *_):
    return _Kind(name)


def _array(*_):
    return _Array(0, np.uint8)


def _scalar(kind, raw):
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, kind.plain)[0]


def _from_buffer(raw, kind, shape, order, axes=None):
    if axes is not None:  # kept in the order of its memory, and turned
        return np.frombuffer(raw, kind.plain).reshape(shape).transpose(axes)
    return np.frombuffer(raw, kind.plain).reshape(shape, order=order)


def _encode(text, encoding):  # how Python 2's protocols write bytes
    return text.encode("latin1" if encoding in ("latin1", "latin-1") else "ascii")


_CORES = ("core", "_core")  # numpy's old and new addresses
ALLOWED = {
    ("numpy", "ndarray"): lambda *_: None,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in _CORES},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "list"): list,
    ("__builtin__", "list"): list,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data needs")
        return ALLOWED[module, name]


def load_arrays(file: str | Path) -> dict[Any, Any]:
    """The dict in a pickle file. ValueError if it is damaged, or asks for more than plain data."""
    try:
        with open(file, "rb") as opened:
            found = _Unpickler(opened, encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(f"the pickle {file} is not opened "
                         f"({str(error) or type(error).__name__}): get the file again from where "
                         "you trust it") from error
    if not isinstance(found, dict):
        raise ValueError(f"the pickle {file} holds a {type(found).__name__}, not a dict of images "
                         "and classes")
    return found
