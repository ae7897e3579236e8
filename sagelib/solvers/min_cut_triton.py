"""Puzzle Mix's minimum cut on an NVIDIA GPU: one program for each image, nothing read on the host.

Push-relabel (A. Goldberg, R. Tarjan, "A New Approach to the Maximum-Flow Problem", JACM 1988), all
nodes at once, on the graph of `min_cut.py` with every edge turned round: what the sink's edges let
in is pushed towards the source. In the end the nodes that still reach the source are the smallest
optimum. Needs Triton, as `search/triton.py` does.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

ENOUGH = 1 << 25  # capacities are scaled so that none comes above this: all sums fit 32 bits
PULSES = 8        # between two exact measurements of the heights


@triton.jit
def _kernel(slope, down, right, out, H, W, PULSES: tl.constexpr, NODES: tl.constexpr,
            BIG: tl.constexpr):
    # one function, since flows and heights stay in registers from pulse to pulse
    SITES, FAR = H * W, 2 * H * W + 1
    node, way = tl.arange(0, NODES)[None, :], tl.arange(0, 16)[:, None]
    level, i, j = node // SITES, node % SITES // W, node % W
    # ways 0 to 3: up, down, left, right on the same level; 4 to 7: on the other one; 8: the site's
    # other node
    step = tl.where(way < 8, way % 4, 4)
    to_i, to_j = i + (step == 1) - (step == 0), j + (step == 3) - (step == 2)
    real = node < 2 * SITES
    there = real & (way < 9) & (to_i >= 0) & (to_i < H) & (to_j >= 0) & (to_j < W)
    to = tl.where(there, tl.where(way < 4, level, 1 - level) * SITES + to_i * W + to_j, node)
    image = tl.program_id(0)
    down += image * (H - 1) * W
    right += image * H * (W - 1)
    weight = (tl.load(down + tl.minimum(i, to_i) * W + j, mask=there & (step < 2), other=0) +
              tl.load(right + i * (W - 1) + tl.minimum(j, to_j), mask=there &
                      (step // 2 == 1), other=0))
    left = tl.where(way < 4, weight, tl.where(level == 0, 2 * weight, 0))
    left = tl.where(there & (way == 8) & (level == 0), BIG, left)  # a label above 1 is above 0
    terminal = tl.load(slope + image * 2 * SITES + node, mask=real, other=0)
    excess, goal = tl.maximum(terminal, 0), tl.maximum(-terminal, 0)
    back = tl.where(way < 8, way ^ 1, way) + tl.zeros((16, NODES), tl.int32)
    height, busy = tl.zeros((1, NODES), tl.int32), 1
    while busy > 0:
        height = tl.where(goal > 0, 1, FAR)
        changed = 1
        while changed > 0:
            other = tl.gather(tl.broadcast_to(height, (16, NODES)), to, 1)
            new = tl.minimum(height, tl.min(tl.where(left > 0, other + 1, FAR), 0, keep_dims=True))
            changed = tl.max(tl.max((new != height).to(tl.int32), 1), 0)
            height = new
        busy = tl.max(tl.max(((excess > 0) & (height < FAR)).to(tl.int32), 1), 0)
        for _ in range(tl.where(busy > 0, PULSES, 0)):
            given = tl.where(height == 1, tl.minimum(excess, goal), 0)
            excess, goal = excess - given, goal - given
            other = tl.gather(tl.broadcast_to(height, (16, NODES)), to, 1)
            room = tl.where(height == other + 1, tl.minimum(left, excess), 0)
            pushed = tl.minimum(room, tl.maximum(excess - (tl.cumsum(room, 0) - room), 0))
            came = tl.gather(tl.gather(pushed, back, 0), to, 1)
            came = tl.where(there, came, 0)
            left += came - pushed
            excess += tl.sum(came - pushed, 0, keep_dims=True)
            lowest = tl.min(tl.where(left > 0, other + 1, FAR), 0, keep_dims=True)
            lowest = tl.where(goal > 0, 1, lowest)
            height = tl.where(excess > 0, tl.maximum(height, lowest), height)
    tl.store(out + image * 2 * SITES + node, (height < FAR).to(tl.int32), mask=real)


def fits(unary: Float[Tensor, "b 3 h w"]) -> bool:
    """Whether an image's graph has a program's size: 16 x 16 sites and a little more."""
    return unary[0, 0].numel() <= 512


def min_cut(unary: Float[Tensor, "b 3 h w"], down: Float[Tensor, "b h-1 w"],
            right: Float[Tensor, "b h w-1"]) -> Int[Tensor, "b h w"]:
    """The labels (B, h, w), int64, of least energy, on one device.

    Exact for costs rounded to about 2e-8 of the image's largest.
    """
    b, _, h, w = unary.shape
    slope, down, right = unary.double().diff(dim=1), down.double() / 4, right.double() / 4
    heaviest = (16 * F.pad(t.flatten(1), (0, 1)).amax(1) for t in (down, right))
    most = slope.abs().amax((1, 2, 3)) + sum(heaviest)
    scale = (ENOUGH / most.clamp(min=1e-30))[:, None]
    slope, down, right = ((t.flatten(1) * scale).round().int() for t in (slope, down, right))
    above, nodes = slope.new_empty(b, 2, h, w), max(32, triton.next_power_of_2(2 * h * w))
    warps = min(16, max(1, nodes // 32))
    _kernel[(b,)](slope, down, right, above, h, w,
                  # pyrefly: ignore  (Triton makes them constants, and takes num_warps itself)
                  PULSES=PULSES, NODES=nodes, BIG=2 * ENOUGH, num_warps=warps)
    return above.sum(1)
