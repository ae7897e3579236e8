"""Equation 4 for many shifts at once, exact, in the form that suits their number and the device.

Every form looks only at the overlap, where both images are in the frame:

- slices: one slice of each map for each shift, the whole batch at once. CPU, some of the shifts;
- table: every row against every row, then sums along diagonals: each pair of pixels is met once.
  CPU, most of them;
- triton: kernels for some shifts and for all (triton.py). NVIDIA GPUs, float32;
- gather: shifts as indices, nothing but tensor operations. Every other device, and shifts of its
  own for each image.

The CPU's two take the mass that stays in the frame from a table of sums in float64. The others add
up what they read, and need no float64, which a Mac's GPU does not have.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..machine import triton_kernels
from .cpu import slices, table, visible
from .gather import gather

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["choose_backend", "gather", "search", "slices", "table", "visible"]

MOST = 0.4       # part of all shifts from which the table is cheaper than slices


@torch.library.custom_op("sagelib::total_saliency", mutates_args=())
def search(a: torch.Tensor, b: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """v (B, N) for maps a and b (B, H, W), at least 0, and shifts tau (N, 2) or (B, N, 2) of b.

    No value leaves the device.
    """
    return choose_backend(a, tau)(a, b, tau)


@search.register_fake
def _(a, b, tau):
    return a.new_empty(len(a), tau.shape[-2])


def choose_backend(a: Float[Tensor, "b h w"],
                   tau: Int[Tensor, "... n 2"]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The function that `search` uses for these maps and that many shifts."""
    if tau.ndim == 3:
        return gather
    if a.is_cpu:
        h, w = a.shape[1:]
        return table if len(tau) > MOST * (2 * h - 1) * (2 * w - 1) else slices
    on_gpu = a.is_cuda and a.dtype == torch.float32 and triton_kernels(__package__, "triton")
    return on_gpu.search if on_gpu else gather
