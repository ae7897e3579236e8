"""Co-Mixup's labelling on an NVIDIA GPU: one program for each problem, nothing read on the host.

The two steps of `grid_labelling.py`: labels that no optimum can have are ruled out, at all sites at
once, until nothing changes; then dynamic programming over the sites, in chunks of choices. Needs
Triton, as `search/triton.py` does.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

CHUNK = 512      # choices of labels that a program looks at in one go
MOST = 1 << 20   # choices for the sites of one row, above which the host takes over


@triton.jit
def _possible(cost, worth, keep, count, L, H: tl.constexpr, W: tl.constexpr, SITES: tl.constexpr,
              LABELS: tl.constexpr):
    """Write the labels an optimum can have, site by site, and how many they are."""
    site, label = tl.arange(0, SITES)[:, None], tl.arange(0, LABELS)[None, :]
    real = (site < H * W) & (label < L)
    own = tl.load(cost + site * L + label, mask=real, other=1e300)
    least = tl.min(own, 1, keep_dims=True)
    one, two = tl.arange(0, LABELS)[:, None], label
    pays = tl.load(worth + one * L + two, mask=(one < L) & (two < L), other=0.0)
    alive, changed = real.to(tl.int32), 1
    while changed > 0:
        most = tl.max(tl.where(alive[:, None, :] > 0, pays[None, :, :], 0.0), 2)
        back = tl.zeros((SITES, LABELS), tl.float64)
        for step in tl.static_range(4):
            i = site // W + (step == 1) - (step == 0)
            j = site % W + (step == 3) - (step == 2)
            there = (i >= 0) & (i < H) & (j >= 0) & (j < W)
            at = tl.where(there, i * W + j, site) + tl.zeros((SITES, LABELS), tl.int32)
            back += tl.where(there, tl.gather(most, at, 0), 0.0)
        new = tl.where(own - least <= back + 1e-12, alive, 0)
        changed = tl.max(tl.max((new != alive).to(tl.int32), 1), 0)
        alive = new
    place = tl.cumsum(alive, 1) - 1
    label += tl.zeros((SITES, LABELS), tl.int32)
    tl.store(keep + site * LABELS + place, label, mask=alive > 0)
    tl.store(count + tl.arange(0, SITES), tl.sum(alive, 1), mask=tl.arange(0, SITES) < H * W)


@triton.jit
def _kernel(cost, apart, worth, wanted, keep, count, table, trail, out, L, CHOICES, H: tl.constexpr,
            W: tl.constexpr, SITES: tl.constexpr, LABELS: tl.constexpr, CHUNK: tl.constexpr):
    # one function, since a second kernel would have to read the tables from memory again
    p = tl.program_id(0)
    if tl.load(wanted + p) == 0:
        return
    cost += p * H * W * L
    apart += p * L * L
    worth += p * L * L
    keep += p * SITES * LABELS
    count += p * SITES
    table += p.to(tl.int64) * 2 * CHOICES
    trail += p.to(tl.int64) * H * W * CHOICES
    _possible(cost, worth, keep, count, L, H, W, SITES, LABELS)
    tl.debug_barrier()
    # `table` has the least cost for each choice of labels at the last W sites, the oldest
    # changing slowest
    size = 1
    tl.store(table, tl.zeros((), tl.float64))
    tl.debug_barrier()
    for t in range(H * W):
        mine, below = tl.load(count + t), t >= W
        beside = t % W > 0  # pyrefly: ignore[unsupported-operation]  (W is a constant)
        above = tl.load(count + tl.maximum(t - W, 0), mask=below, other=1)
        left = tl.load(count + tl.maximum(t - 1, 0), mask=beside, other=1)
        rest = size // above
        old, new = table + t % 2 * CHOICES, table + (t + 1) % 2 * CHOICES
        for start in range(0, rest * mine, CHUNK):
            n = start + tl.arange(0, CHUNK)
            inside, r = n < rest * mine, n // mine
            label = tl.load(keep + t * LABELS + n % mine, mask=inside, other=0)
            best, origin = tl.full((CHUNK,), 1e300, tl.float64), tl.zeros((CHUNK,), tl.int32)
            for u in range(above):
                value = tl.load(old + u * rest + r, mask=inside, other=1e300)
                up = tl.load(keep + tl.maximum(t - W, 0) * LABELS + u)
                value += tl.load(apart + up * L + label, mask=inside & below, other=0.0)
                origin = tl.where(value < best, u, origin)
                best = tl.minimum(value, best)
            at = tl.load(keep + tl.maximum(t - 1, 0) * LABELS + r % left, mask=inside & beside,
                         other=0)
            best += tl.load(apart + at * L + label, mask=inside & beside, other=0.0)
            best += tl.load(cost + t * L + label, mask=inside, other=0.0)
            tl.store(new + n, best, mask=inside)
            tl.store(trail + t * CHOICES + n, origin.to(tl.int8), mask=inside)
        size = rest * mine
        tl.debug_barrier()
    least, at, old = tl.full((), 1e300, tl.float64), 0, table + H * W % 2 * CHOICES
    for start in range(0, size, CHUNK):
        n = start + tl.arange(0, CHUNK)
        value = tl.load(old + n, mask=n < size, other=1e300)
        first = tl.min(value, 0)
        at = tl.where(first < least, start + tl.argmin(value, 0), at)
        least = tl.minimum(first, least)
    for back in range(H * W):  # from the last site to the first
        t = H * W - 1 - back
        mine = tl.load(count + t)
        tl.store(out + p * H * W + t, tl.load(keep + t * LABELS + at % mine).to(tl.int64))
        rest = 1
        for k in range(tl.maximum(t - W + 1, 0), t):
            rest *= tl.load(count + k)
        origin = tl.load(trail + t * CHOICES + at).to(tl.int32)
        at = at // mine + tl.where(t >= W, origin * rest, 0)


def fits(cost: Float[Tensor, "p h w l"]) -> bool:
    """Whether the choices for the sites of one row, all labels possible, have room."""
    return cost.shape[3] <= 127 and cost.shape[3] ** cost.shape[2] <= MOST


def minimise(cost: Float[Tensor, "p h w l"], apart: Float[Tensor, "p l l"], weight: float,
             wanted: Bool[Tensor, " p"]) -> Int[Tensor, "p h w"]:
    """The labels (P, h, w), int64, of least energy in the problems that are `wanted`, else 0.

    float64; all tensors are on one device.
    """
    p, h, w, labels = cost.shape
    sites, wide = triton.next_power_of_2(h * w), triton.next_power_of_2(labels)
    keep = cost.new_empty(p, sites, wide, dtype=torch.int32)
    count = cost.new_empty(p, sites, dtype=torch.int32)
    out = cost.new_zeros(p, h, w, dtype=torch.int64)
    table = cost.new_empty(p, 2, labels**w)
    trail = cost.new_empty(p, h * w, labels**w, dtype=torch.int8)
    _kernel[(p,)](cost.contiguous(), weight * apart, weight * (1 - apart), wanted.to(torch.int8),
                  keep, count, table, trail, out, labels, labels**w,
                  # pyrefly: ignore[bad-argument-type]  (Triton makes them constants)
                  H=h, W=w, SITES=sites, LABELS=wide, CHUNK=CHUNK)
    return out
