"""Alpha-beta swap moves on a small grid: the approximate solver that the authors of Puzzle Mix and
of Co-Mixup use, in loops that numba compiles.

Y. Boykov, O. Veksler, R. Zabih, "Fast Approximate Energy Minimization via Graph Cuts", PAMI 2001.
A move takes two labels and gives each site that has one of them the better of the two, all sites at
once, by a minimum cut. Moves go through all pairs of labels until a round lowers nothing. That is a
local optimum; `min_cut.py` and `grid_labelling.py` find the best one. Costs are whole numbers, as
in the authors' library (gco); of equal cuts the one that gives the lower label to the most sites is
taken.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


@torch.library.custom_op(
    "sagelib::swap_moves", mutates_args=(),
    schema="(Tensor cost, Tensor apart, Tensor down, Tensor right) -> Tensor")
def swap_moves(cost: Int[Tensor, "b h w l"], apart: Int[Tensor, "b l l"],
               down: Int[Tensor, "b h-1 w"], right: Int[Tensor, "b h w-1"]) -> Int[Tensor, "b h w"]:
    """The labels (B, h, w), int64, that swap moves reach from label 0 everywhere.

    cost: of each label at each site; apart: what two labels of neighbours cost, symmetric, at least
    0 and 0 on the diagonal, times the weight of the neighbours, down or right, at least 0. Solved
    on the host, whatever the device.
    """
    one = _compiled()
    parts = [z.detach().cpu().long().contiguous().numpy() for z in (cost, apart, down, right)]
    found = [one(*terms) for terms in zip(*parts, strict=True)]
    return torch.from_numpy(np.stack(found)).to(cost.device)


@swap_moves.register_fake
def _(cost, apart, down, right):
    return cost.new_empty(cost.shape[:3], dtype=torch.int64)


@functools.cache
def _compiled():
    try:
        import numba
    except ImportError as error:
        raise ImportError("swap moves need numba: pip install 'sagelib[solvers]'") from error
    compiled = numba.njit(cache=True)
    steps = tuple(map(compiled, (_energy, _problem, _path, _push, _upper)))
    moves = compiled(_moves)
    return lambda cost, apart, down, right: moves(cost, apart, down, right, *steps)


def _moves(cost, apart, down, right, energy, problem, path, push, upper):
    """Labels (h, w) after moves of all pairs of labels, in rounds, until a round lowers nothing."""
    h, w, count = cost.shape
    labels, way = np.zeros((h, w), dtype=np.int64), np.zeros((h, w), dtype=np.int64)
    value = energy(labels, cost, apart, down, right)
    last = value + 1
    while value < last:
        last = value
        for a in range(count):
            for b in range(count - 1, a, -1):
                there = (labels == a) | (labels == b)
                if not there.any():
                    continue
                net, links = problem(labels, there, a, b, cost, apart, down, right)
                i, j = path(net, links, way)
                while i >= 0:
                    push(net, links, way, i, j)
                    i, j = path(net, links, way)
                changed = upper(net, links)
                labels = np.where(there, np.where(changed, b, a), labels)
        value = energy(labels, cost, apart, down, right)
    return labels


def _energy(labels, cost, apart, down, right):
    h, w = labels.shape
    total = 0
    for i in range(h):
        for j in range(w):
            total += cost[i, j, labels[i, j]]
            if i + 1 < h:
                total += down[i, j] * apart[labels[i, j], labels[i + 1, j]]
            if j + 1 < w:
                total += right[i, j] * apart[labels[i, j], labels[i, j + 1]]
    return total


# a cut: `net` (h, w) is the capacity from the source less that to the sink; `links` (4, h, w) are
# those to the neighbours up, left, down and right

def _problem(labels, there, a, b, cost, apart, down, right):
    """The cut of one move: source's side is label a. What label b costs more is net capacity."""
    h, w = labels.shape
    net, links = np.zeros((h, w), dtype=np.int64), np.zeros((4, h, w), dtype=np.int64)
    for i in range(h):
        for j in range(w):
            if not there[i, j]:
                continue
            net[i, j] = cost[i, j, b] - cost[i, j, a]
            for d, y, x in ((0, i - 1, j), (1, i, j - 1), (2, i + 1, j), (3, i, j + 1)):
                if 0 <= y < h and 0 <= x < w:
                    weight = (down if d % 2 == 0 else right)[min(i, y), min(j, x)]
                    if there[y, x]:
                        links[d, i, j] = weight * apart[a, b]
                    else:
                        net[i, j] += weight * (apart[b, labels[y, x]] - apart[a, labels[y, x]])
    return net, links


def _path(net, links, way):
    """Where a shortest path with capacity left ends, or (-1, -1); `way` is how it came there."""
    h, w = net.shape
    way[:] = np.where(net > 0, 4, -1)  # 4: from the source
    queue, first = np.zeros((h * w, 2), dtype=np.int64), np.argwhere(net > 0)
    head, tail = 0, len(first)
    queue[:tail] = first
    while head < tail:
        i, j = queue[head]
        head += 1
        for d, y, x in ((0, i - 1, j), (1, i, j - 1), (2, i + 1, j), (3, i, j + 1)):
            if 0 <= y < h and 0 <= x < w and links[d, i, j] > 0 and way[y, x] < 0:
                way[y, x] = d
                if net[y, x] < 0:
                    return y, x
                queue[tail] = y, x
                tail += 1
    return -1, -1


def _push(net, links, way, end_i, end_j):
    """Send as much along the path as it carries."""
    flow = -net[end_i, end_j]
    for pushing in (False, True):
        i, j = end_i, end_j
        while way[i, j] < 4:
            d = way[i, j]
            y = i + (1 if d == 0 else -1 if d == 2 else 0)
            x = j + (1 if d == 1 else -1 if d == 3 else 0)
            if pushing:
                links[d, y, x] -= flow
                links[(d + 2) % 4, i, j] += flow
            else:
                flow = min(flow, links[d, y, x])
            i, j = y, x
        if not pushing:
            flow = min(flow, net[i, j])
    net[i, j] -= flow
    net[end_i, end_j] += flow


def _upper(net, links):
    """Which sites (h, w) can still reach the sink: the fewest that any minimum cut has there."""
    h, w = net.shape
    upper = net < 0
    queue, first = np.zeros((h * w, 2), dtype=np.int64), np.argwhere(upper)
    head, tail = 0, len(first)
    queue[:tail] = first
    while head < tail:
        i, j = queue[head]
        head += 1
        for d, y, x in ((2, i - 1, j), (3, i, j - 1), (0, i + 1, j), (1, i, j + 1)):
            if 0 <= y < h and 0 <= x < w and not upper[y, x] and links[d, y, x] > 0:
                upper[y, x] = True
                queue[tail] = y, x
                tail += 1
    return upper
