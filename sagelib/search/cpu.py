"""Equation 4 on a CPU, exact: slices of both maps for some shifts, or a table of all of them."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK = 1 << 19  # numbers in the working memory: 2 MB of float32


def slices(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
           tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v from slices of both maps, shift after shift; a zero adds exactly nothing."""
    h, w = a.shape[1:]
    inverse_a, inverse_b = 1 / a, 1 / b
    overlap = a.new_empty(len(tau), len(a))
    for out, (i, j) in zip(overlap, tau.tolist(), strict=True):
        first = inverse_a[:, max(i, 0):max(h + i, 0), max(j, 0):max(w + j, 0)]
        second = inverse_b[:, max(-i, 0):max(h - i, 0), max(-j, 0):max(w - j, 0)]
        torch.sum((first + second).reciprocal_(), (1, 2), out=out)
    return a.sum((1, 2))[:, None] + visible(b, tau) - 2 * overlap.T


def table(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
          tau: Int[Tensor, "n 2"]) -> Float[Tensor, "b n"]:
    """v picked from the table of all shifts: rows against rows, the batch innermost."""
    h, w = a.shape[1:]
    several = max(1, BLOCK // (w * w))
    i, j = tau[:, 0] + h - 1, tau[:, 1] + w - 1
    inside = (i >= 0) & (i < 2 * h - 1) & (j >= 0) & (j < 2 * w - 1)
    i, j, v = i.clamp(0, 2 * h - 2), j.clamp(0, 2 * w - 2), a.new_empty(len(a), len(tau))
    for out, *maps in zip(v.split(several), a.split(several), b.split(several), strict=True):
        out.copy_(_whole_table(*maps)[:, i, j])
    return v.mul_(inside).add_(a.sum((1, 2))[:, None])


def _whole_table(a, b):
    """What b adds to v at each shift: visible mass less twice the overlap term, (B, 2h-1, 2w-1)."""
    n, h, w = a.shape
    inverse_a, inverse_b = ((1 / z).permute(1, 2, 0).contiguous() for z in (a, b.flip(2)))
    mass, by = _integral(b).permute(1, 2, 0).contiguous(), torch.arange(1 - w, w)
    right, left = (w - by).clamp(max=w), (-by).clamp(min=0)
    # column j of the first meets column w - 1 - k of the second at place (j, k): their shift is j +
    # k - (w - 1); w zeros after each row, read in rows one shorter, bring places of one shift under
    # each other
    wide = a.new_zeros(w, 2 * w, n)
    diagonals = wide.view(-1, n)[:-w].view(w, 2 * w - 1, n)
    # reused: new memory costs as much as the arithmetic
    space = a.new_empty(max(1, BLOCK // (w * w * n)), w, w, n)
    out = a.new_empty(2 * h - 1, 2 * w - 1, n)
    for i in range(1 - h, h):
        wide[:, :w] = _meet(inverse_a[max(i, 0):h + min(i, 0)], inverse_b[max(-i, 0):h - max(i, 0)],
                            space)
        seen = mass[h - max(i, 0)] - mass[max(-i, 0)]
        seen = (seen[right] - seen[left]).clamp_(min=0)
        torch.sub(seen, diagonals.sum(0), alpha=2, out=out[i + h - 1])
    return out.permute(2, 0, 1)


def _meet(first, second, space):
    """Sum over the rows of 1 / (first[:, j] + second[:, k]), (w, w, B), as many rows at once as
    `space` has."""
    parts = zip(first.split(len(space)), second.split(len(space)), strict=True)
    sums = (torch.add(p[:, :, None], q[:, None], out=space[:len(p)]).reciprocal_().sum(0)
            for p, q in parts)
    return functools.reduce(Tensor.add_, sums)


def visible(b: Float[Tensor, "b h w"], tau: Int[Tensor, "... n 2"]) -> Float[Tensor, "b n"]:
    """Mass of each map that each shift keeps in the frame, (B, N), from an integral image."""
    h, w = b.shape[1:]
    integral, i, j = _integral(b), tau[..., 0], tau[..., 1]
    top, bottom = (-i).clamp(0, h), (h - i).clamp(0, h)
    left, right = (-j).clamp(0, w), (w - j).clamp(0, w)
    each = slice(None) if tau.ndim == 2 else torch.arange(len(b), device=b.device)[:, None]
    inside = (integral[each, bottom, right] - integral[each, top, right]
              - integral[each, bottom, left] + integral[each, top, left])
    return inside.clamp(min=0).to(b.dtype)


def _integral(b):
    """Sums over all rectangles from the top left corner, (B, h + 1, w + 1), in float64."""
    return F.pad(b.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
