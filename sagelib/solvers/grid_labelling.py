"""The exact optimum of Co-Mixup's labelling problem on a small grid, in loops that numba compiles.

Cost: cost[i, j, k] for label k at a site, plus weight * apart[k, l] for every two neighbours. Two
steps: labels that no optimum can have are ruled out, and the rest is solved site by site, with the
best cost for all labels of the last row kept. The difference from the authors' code: theirs runs
swap moves of gco, which stop at local optima.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..machine import triton_kernels

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def energy(labels: Int[Tensor, "p h w"], cost: Float[Tensor, "p h w l"],
           apart: Float[Tensor, "p l l"], weight: float) -> Float[Tensor, " p"]:
    """Cost of each problem's labels, (P,); `apart` is symmetric, 0 on the diagonal, in [0, 1]."""
    p = torch.arange(len(cost), device=cost.device)[:, None, None]
    sites = cost.gather(3, labels[..., None]).sum((1, 2, 3))
    down = apart[p, labels[:, 1:], labels[:, :-1]].sum((1, 2))
    right = apart[p, labels[:, :, 1:], labels[:, :, :-1]].sum((1, 2))
    return sites + weight * (down + right)


@torch.library.custom_op(
    "sagelib::potts", mutates_args=(),
    schema="(Tensor cost, Tensor apart, float weight, Tensor wanted) -> Tensor")
def minimise(cost: Float[Tensor, "p h w l"], apart: Float[Tensor, "p l l"], weight: float,
             wanted: Bool[Tensor, " p"]) -> Int[Tensor, "p h w"]:
    """The labels (P, h, w), int64, of least `energy` in each problem that is `wanted`, else 0.

    float64. Time grows with what cannot be ruled out. On an NVIDIA GPU it is solved there
    (grid_labelling_triton.py), else on the host.
    """
    on_gpu = triton_kernels(__package__, "grid_labelling_triton") if cost.is_cuda else None
    if on_gpu is not None and on_gpu.fits(cost):
        return on_gpu.minimise(cost, apart, weight, wanted)
    one, out = _compiled(), torch.zeros(cost.shape[:3], dtype=torch.int64)
    for k in wanted.cpu().nonzero()[:, 0].tolist():
        out[k] = torch.from_numpy(one(cost[k].cpu().numpy(), apart[k].cpu().numpy(), weight))
    return out.to(cost.device)


@minimise.register_fake
def _(cost, apart, weight, wanted):
    return cost.new_empty(cost.shape[:3], dtype=torch.int64)


@functools.cache
def _compiled():
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            "Co-Mixup's solver needs numba: pip install 'sagelib[solvers]'") from error
    compiled = numba.njit(cache=True)
    possible, solve = compiled(_possible), compiled(_solve)

    def one(cost, apart, weight):
        cost = np.ascontiguousarray(cost, dtype=np.float64)
        apart = np.ascontiguousarray(apart, dtype=np.float64)
        return solve(cost, apart, weight, possible(cost, apart, weight))

    return one


def _possible(cost, apart, weight):
    """Which labels an optimum can have, (h, w, L).

    Not one that costs more than the site's cheapest by more than its neighbours could pay back;
    they pay only for labels that are like it and possible there themselves.
    """
    h, w, count = cost.shape
    alive = np.ones((h, w, count), dtype=np.bool_)
    changed = True
    while changed:
        changed = False
        for i in range(h):
            for j in range(w):
                least = cost[i, j].min()
                for k in range(count):
                    if not alive[i, j, k]:
                        continue
                    back = 0.0
                    for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                        if 0 <= a < h and 0 <= b < w:
                            most = 0.0
                            for n in range(count):
                                if alive[a, b, n] and 1 - apart[k, n] > most:
                                    most = 1 - apart[k, n]
                            back += weight * most
                    if cost[i, j, k] - least > back + 1e-12:
                        alive[i, j, k] = False
                        changed = True
    return alive


def _solve(cost, apart, weight, alive):
    """Labels (h, w) of least energy among those alive: dynamic programming in reading order.

    `table` has the least cost for each choice of labels at the last w sites, the oldest changing
    slowest. It is one function since numba compiles all of it, and its arrays change size from site
    to site.
    """
    h, w, _ = cost.shape
    keep = [np.nonzero(alive[t // w, t % w])[0] for t in range(h * w)]
    table, trail = np.zeros(1), [np.zeros((1, 1), dtype=np.int16)]
    for t in range(h * w):
        mine = keep[t]
        above = keep[t - w] if t >= w else np.zeros(1, dtype=np.int64)
        left = keep[t - 1] if t % w else np.zeros(1, dtype=np.int64)
        rest = len(table) // len(above)
        table = table.reshape(len(above), rest)
        best, origin = np.empty((rest, len(mine))), np.zeros((rest, len(mine)), dtype=np.int16)
        near = np.zeros((len(mine), len(above)), dtype=np.int64)
        nears = np.zeros(len(mine), dtype=np.int64)
        for k in range(len(mine)):
            for u in range(len(above)):
                if t >= w and apart[above[u], mine[k]] < 1:
                    near[k, nears[k]] = u
                    nears[k] += 1
        beside = np.zeros((len(left), len(mine)))
        for k in range(len(mine)):
            for n in range(len(left)):
                to_left = weight * apart[left[n], mine[k]] if t % w else 0.0
                beside[n, k] = cost[t // w, t % w, mine[k]] + to_left
        lowest = np.zeros(rest, dtype=np.int16)
        for u in range(1, len(above)):
            for r in range(rest):
                if table[u, r] < table[lowest[r], r]:
                    lowest[r] = u
        far = weight if t >= w else 0.0
        for r in range(rest):
            for k in range(len(mine)):
                where, value = lowest[r], table[lowest[r], r] + far
                for n in range(nears[k]):
                    u = near[k, n]
                    other = table[u, r] + weight * apart[above[u], mine[k]]
                    if other < value:
                        where, value = u, other
                best[r, k] = value + beside[r % len(left), k]
                origin[r, k] = where
        table = best.reshape(-1)
        trail.append(origin)
    labels, at = np.zeros(h * w, dtype=np.int64), int(table.argmin())
    chosen = np.zeros(h * w, dtype=np.int64)
    for t in range(h * w - 1, -1, -1):
        r, k = at // len(keep[t]), at % len(keep[t])
        chosen[t], labels[t] = k, keep[t][k]
        rest = trail[t + 1].shape[0]
        at = trail[t + 1][r, k] * rest + r if t >= w else r
    return labels.reshape(h, w)
