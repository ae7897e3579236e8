"""Co-Mixup's search for the input that each output shows in each cell: sweeps over the outputs.

The steps and their order are those of the authors' code; the difference is that each labelling is
solved exactly (`grid_labelling.py`), unless their approximate solver is asked for
(`swap_moves.py`). Tensor operations throughout: on an NVIDIA GPU nothing here waits for a value
where labellings are solved exactly.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid_labelling import minimise
from .swap_moves import swap_moves

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

NEVER = 1e3  # cost of a label that does not exist
BONUS = 5e-4  # what a cell shared by two inputs is cheaper than their mean


def assign(
    cost: Float[Tensor, "p n h w"], alike: Float[Tensor, "p n n"], start: Int[Tensor, "p n h w"],
    beta: float, gamma: float, threshold: float, sweeps: int, solver: str = "exact",
) -> Float[Tensor, "p n h w n"]:
    """Shares of each input in each output's cells, (P, n, 4, 4, n), each output labelled exactly.

    P partitions at once. cost: of showing an input in a cell; alike: how much two inputs count as
    the same; start: the first input of each output's cells. A partition that a sweep did not change
    by a millionth is left as it is. solver: "exact", or the authors' "swap". Float64, on the CPU
    unless the device is an NVIDIA GPU, the one kind that solves the labellings itself.
    """
    home = cost.device
    if home.type not in ("cpu", "cuda", "meta"):
        cost, alike, start = cost.cpu(), alike.cpu(), start.cpu()
    cost, alike = cost.detach().double(), alike.detach().double()
    cells = start.shape[2] * start.shape[3]
    beta, gamma, repel = beta / cells, gamma / cells, torch.zeros_like(alike)
    # (P, n, 4, 4, n)
    z = (start[..., None] == torch.arange(cost.shape[1], device=start.device)).double()
    last = objective(z, cost, beta, gamma)
    moving = torch.ones_like(last, dtype=torch.bool)
    for sweep in range(sweeps):
        for i in range(z.shape[1]):
            counts = z.sum((2, 3))  # (P, n, n): cells of each output that show each input
            elsewhere = penalty(alike, counts.sum(1) - counts[:, i], threshold * cells)
            linear = gamma * (2 * elsewhere + repel[:, i])
            z[:, i] = relabel(cost + linear[:, :, None, None], z[:, i], beta, sweep > 0, moving,
                              solver)
        if sweep == sweeps - 2:
            repel = torch.where(moving[:, None, None], distinctness_penalty(z), repel)
        value = objective(z, cost, beta, gamma)
        moving = moving & ((last - value).abs() >= 1e-6 * value.abs())
        last = value
    return z.float().to(home)


def objective(z: Float[Tensor, "p n h w n"], cost: Float[Tensor, "p n h w"], beta: float,
              gamma: float) -> Float[Tensor, " p"]:
    """What a sweep should lower, (P,): cost, unlike neighbours, inputs that several outputs use."""
    counts = z.sum((2, 3))  # (P, n, n)
    shown = (z * cost.movedim(1, 3)[:, None]).sum((1, 2, 3, 4))
    unlike = z.diff(dim=2).square().sum((1, 2, 3, 4)) + z.diff(dim=3).square().sum((1, 2, 3, 4))
    several = counts.sum(1).square().sum(1) - counts.square().sum((1, 2))
    return shown + beta / 2 * unlike + gamma * several


def penalty(alike: Float[Tensor, "p n n"], others: Float[Tensor, "p n"],
            threshold: float) -> Float[Tensor, "p n"]:
    """What each input costs for its use elsewhere, (P, n).

    Sums columns of `alike`, times the cells in `others`, whose input is used above the threshold.
    """
    used = (alike @ others[:, :, None])[:, :, 0] > threshold
    return (alike @ (used * others)[:, :, None])[:, :, 0]


def relabel(cost: Float[Tensor, "p n h w"], z: Float[Tensor, "p h w n"], beta: float, shared: bool,
            moving: Bool[Tensor, " p"], solver: str = "exact") -> Float[Tensor, "p h w n"]:
    """The best cells (P, 4, 4, n) of one output of each partition.

    z: the cells before, which stay where `moving` is False. If `shared`, two inputs may share a
    cell: inputs that the output uses, at most the three it uses most. These are three labels beside
    the n, some of which may not exist.
    """
    p, n = cost.shape[:2]
    shares = torch.eye(n, dtype=cost.dtype, device=cost.device).expand(p, n, n)
    every = cost.movedim(1, 3)                                               # (P, 4, 4, n)
    apart = 1 - shares                                                       # (P, n, n)
    if shared:
        couples, exists = _couples(z.sum((1, 2)))
        both = (every.flatten(1, 2) @ couples.mT - BONUS).unflatten(1, cost.shape[2:])
        every = torch.cat([every, torch.where(exists[:, None, None], both, NEVER)], 3)
        shares = torch.cat([shares, couples], 1)                             # (P, n + 3, n)
        apart = 1 - torch.eye(n + 3, dtype=cost.dtype, device=cost.device).repeat(p, 1, 1)
        apart[:, n:, :n] = torch.where(couples > 0, 0.25, 1)
        apart[:, :n, n:] = apart[:, n:, :n].mT
    if solver == "exact":
        labels = minimise(every, apart, beta, moving).flatten(1)
    else:
        labels = labels_by_swaps(every, apart, beta).flatten(1)
    new = shares.gather(1, labels[:, :, None].expand(-1, -1, n)).view_as(z)  # (P, 4, 4, n)
    return torch.where(moving[:, None, None, None], new, z)


def labels_by_swaps(cost: Float[Tensor, "p h w l"], apart: Float[Tensor, "p l l"],
                    weight: float) -> Int[Tensor, "p h w"]:
    """The authors' labels (P, h, w): swap moves on costs that their library cuts to whole numbers.
    """
    p, h, w, _ = cost.shape
    edge = torch.full((), int(1000 * weight), dtype=torch.int64, device=cost.device)
    return swap_moves((1e5 * cost).long(), (100 * apart).long(), edge.expand(p, h - 1, w),
                      edge.expand(p, h, w - 1))


def _couples(counts):
    """Shares (P, 3, n), half and half, of the pairs of the three inputs used most; which exist."""
    counts, most = counts.sort(descending=True, stable=True)
    n, most, used = counts.shape[1], most[:, :3], counts[:, :3] > 0
    most = torch.where(used, most, n).sort().values  # n: fewer than three are used
    # a partition may have one input
    first, second, third = F.pad(most, (0, 3 - most.shape[1]), value=n).unbind(1)
    one, two = torch.stack([first, first, second], 1), torch.stack([second, third, third], 1)
    inputs = torch.arange(n, device=counts.device)
    exists = two < n  # (P, 3)
    halves = ((inputs == one[..., None]) | (inputs == two[..., None])) * exists[..., None]
    return halves.to(counts.dtype) / 2, exists


def distinctness_penalty(z: Float[Tensor, "p n h w n"]) -> Float[Tensor, "p n n"]:
    """Cost (P, n, n) of inputs for outputs that use the same ones.

    One of two such outputs is to avoid the first of their inputs, the other the second.
    """
    used = z.sum((2, 3)) > 0  # (P, n, n)
    same = (used[:, :, None] == used[:, None]).all(3) & (used.sum(2) > 1)[:, None]
    # such an output comes before, after this one
    before, after = same.tril(-1).any(2)[..., None], same.triu(1).any(2)[..., None]
    order = used.long().cumsum(2)
    avoided = ((order == 1) & after) | ((order == 2) & before)
    return (used & avoided).to(z.dtype)
