"""Arithmetic outside of the network in few kernels: torch.compile, once for each function."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


@functools.cache
def compiled(function: Function) -> Function:
    """The compiled form of a function: the same values but for rounding, in few kernels.

    It must take tensors and plain values, and draw nothing. Each shape is compiled once; after
    eight forms of a function in one process PyTorch runs it as it is. A custom operation, such as
    the search of Equation 4, stays as it is.
    """
    return cast("Function", torch.compile(function, dynamic=False))
