"""Equation 4 on an NVIDIA GPU: some shifts in one kernel, all of them in two.

    v(tau)  =  sum of a  +  sum over the overlap of b - 2 / (1 / a + 1 / b),

since a pixel where only one image has saliency is kept whole (`rearrange.py`).

- Some shifts: one program for each pair of maps and shift reads the overlap.
- Most of them: one program for each pair of maps and shift of rows. Each row of one map meets a row
  of the other, every column with every column; what belongs to one shift of columns is on one
  diagonal of that table. So each pair of pixels is met once, and no program loads what is not in
  the overlap.

Needs Triton (it comes with torch for NVIDIA GPUs); TRITON_INTERPRET=1 runs the kernels on a CPU,
for tests.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PIXELS = 512  # of a map that a program looks at in one go
MOST = 0.25   # part of all shifts from which the table is less work, by counting
SHIFTS = 256  # that a program picks from the table
BLOCK = 32    # columns of the first map that meet all columns of the second in one go


@triton.jit
def _sum(z, H, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of the map at z."""
    column = tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for top in range(0, H, ROWS):
        row = top + tl.arange(0, ROWS)[:, None]
        total += tl.load(z + row * W + column, mask=(row < H) & (column < W), other=0.0)
    return tl.sum(tl.sum(total, 1), 0)


@triton.jit
def _some(a, b, tau, out, shifts, H, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """v of one pair of maps at one shift."""
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
        kept += q - 2 / (1 / p + 1 / q)
    v = _sum(a, H, W, ROWS, COLUMNS) + tl.sum(tl.sum(kept, 1), 0)
    tl.store(out + image * shifts + k, v)


@triton.jit
def _all(a, b, out, H, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """v of one pair of maps at one shift of rows and every shift of columns."""
    i, image = tl.program_id(0) - (H - 1), tl.program_id(1)
    a += image * H * W
    b += image * H * W
    k = tl.arange(0, COLUMNS)             # columns of the second map
    by = tl.arange(0, 2 * COLUMNS)        # shifts of columns, from 1 - W
    v = tl.zeros((2 * COLUMNS,), tl.float32)
    for first in range(0, W, BLOCK):
        j = first + tl.arange(0, BLOCK)   # columns of the first map
        met = tl.zeros((BLOCK, COLUMNS), tl.float32)
        mass = tl.zeros((COLUMNS,), tl.float32)
        for row in range(tl.maximum(i, 0), H + tl.minimum(i, 0)):
            p = tl.load(a + row * W + j, mask=j < W, other=0.0)
            q = tl.load(b + (row - i) * W + k, mask=k < W, other=0.0)
            met += 1 / ((1 / p)[:, None] + (1 / q)[None, :])
            mass += q
        added = tl.where((j < W)[:, None], mass[None, :] - 2 * met, 0.0)
        at = j[:, None] + (W - 1) - by[None, :]      # j - k = shift
        there = (at >= 0) & (at < W)
        diagonals = tl.gather(added, tl.where(there, at, 0), 1)  # (BLOCK, 2 COLUMNS)
        v += tl.sum(tl.where(there, diagonals, 0.0), 0)
    total = _sum(a, H, W, ROWS, COLUMNS)
    high, wide = 2 * H - 1, 2 * W - 1
    out += image * (high * wide + 1)
    tl.store(out + (i + H - 1) * wide + by, v + total, mask=by < wide)
    tl.store(out + high * wide, total, mask=i == 0)  # of all shifts that leave no overlap


@triton.jit
def _pick(every, tau, out, shifts, H, W, SHIFTS: tl.constexpr):
    """v at some shifts, from the table of one pair of maps that `_all` made."""
    k, image = tl.program_id(0) * SHIFTS + tl.arange(0, SHIFTS), tl.program_id(1)
    high, wide = 2 * H - 1, 2 * W - 1
    i = tl.load(tau + 2 * k, mask=k < shifts, other=0).to(tl.int32) + H - 1
    j = tl.load(tau + 2 * k + 1, mask=k < shifts, other=0).to(tl.int32) + W - 1
    inside = (i >= 0) & (i < high) & (j >= 0) & (j < wide)
    place = image * (high * wide + 1) + tl.where(inside, i * wide + j, high * wide)
    tl.store(out + image * shifts + k, tl.load(every + place), mask=k < shifts)


def search(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
           tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v (B, N) for maps (B, H, W), float32, and shifts (N, 2), on one device."""
    h, w = a.shape[1:]
    most = len(tau) > MOST * (2 * h - 1) * (2 * w - 1)
    return (table if most else some)(a, b, tau)


def some(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
         tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v (B, N), shift after shift."""
    n, h, w = a.shape
    out = a.new_empty(n, len(tau))
    # pyrefly: ignore[bad-argument-type]  (Triton makes the keywords constants)
    _some[(len(tau), n)](a.contiguous(), b.contiguous(), tau.contiguous(), out, len(tau), h, w,
                         **_sizes(w))
    return out


def table(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
          tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v (B, N) picked from the table of all shifts."""
    n, h, w = a.shape
    every, out = a.new_empty(n, (2 * h - 1) * (2 * w - 1) + 1), a.new_empty(n, len(tau))
    sizes = _sizes(w)
    # pyrefly: ignore[bad-argument-type]
    _all[(2 * h - 1, n)](a.contiguous(), b.contiguous(), every, h, w, **sizes,
                         BLOCK=min(BLOCK, sizes["COLUMNS"]),
                         num_warps=min(8, -(-sizes["COLUMNS"] // 32)))  # a column for a thread
    # pyrefly: ignore[bad-argument-type]
    _pick[(triton.cdiv(len(tau), SHIFTS), n)](every, tau.contiguous(), out, len(tau), h, w,
                                              SHIFTS=SHIFTS)
    return out


def _sizes(w):
    """How many rows and columns of a map a program looks at in one go."""
    columns = triton.next_power_of_2(w)
    return {"ROWS": max(1, PIXELS // columns), "COLUMNS": columns}
