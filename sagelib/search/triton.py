"""Equation 4 on an NVIDIA GPU: one program for each pair of maps and shift reads the overlap.

    v(tau)  =  sum of a  +  sum over the overlap of b (1 - 2 M),   M = a / (a + b) of Equation 2,

since a pixel where only one image has saliency is kept whole. Needs Triton (it comes with torch for
NVIDIA GPUs); TRITON_INTERPRET=1 runs the kernel on a CPU, for tests.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PIXELS = 512  # of the overlap that a program looks at in one go


@triton.jit
def _kernel(a, b, tau, out, shifts, H, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    k, image = tl.program_id(0), tl.program_id(1)
    i, j = tl.load(tau + 2 * k).to(tl.int32), tl.load(tau + 2 * k + 1).to(tl.int32)
    column = tl.arange(0, COLUMNS)[None, :]
    here = (column < W) & (column >= j) & (column < W + j)
    a += image * H * W
    b += image * H * W
    kept = tl.zeros((ROWS, COLUMNS), tl.float32)
    for top in range(tl.maximum(i, 0), H + tl.minimum(i, 0), ROWS):
        row = top + tl.arange(0, ROWS)[:, None]
        inside = here & (row < H) & (row < H + i)
        p = tl.load(a + row * W + column, mask=inside, other=0.0)
        q = tl.load(b + (row - i) * W + (column - j), mask=inside, other=0.0)
        total = p + q
        share = tl.where(total > 0, p / tl.where(total > 0, total, 1.0), 0.0)
        kept += q - 2 * share * q
    tl.store(out + image * shifts + k, tl.sum(tl.sum(kept, 1), 0))


def search(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
           tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v (B, N) for maps (B, H, W), float32, and shifts (N, 2), on one device."""
    n, h, w = a.shape
    out = a.new_empty(n, len(tau))
    columns = triton.next_power_of_2(w)
    _kernel[(len(tau), n)](a.contiguous(), b.contiguous(), tau.contiguous(), out, len(tau), h, w,
                           # pyrefly: ignore[bad-argument-type]  (Triton makes them constants)
                           ROWS=max(1, PIXELS // columns), COLUMNS=columns)
    return out.add_(a.sum((1, 2))[:, None])

