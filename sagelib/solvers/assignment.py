"""Co-Mixup's search: which input each output shows in each cell, output after output, sweep after
sweep.

The steps and their order are those of the authors' code; the difference is that each labelling is
solved exactly (`grid_labelling.py`). Tensor operations throughout: on an NVIDIA GPU nothing here
waits for a value.
"""
import torch
import torch.nn.functional as F

from .grid_labelling import minimise

NEVER = 1e3  # cost of a label that does not exist
BONUS = 5e-4  # what a cell shared by two inputs is cheaper than their mean


def assign(cost, alike, start, beta, gamma, threshold, sweeps):
    """Shares (P, n, 4, 4, n) of each input in each output's cells: sweeps over the outputs, each
    labelled exactly.

    P partitions at once. cost (P, n, 4, 4): of showing an input in a cell; alike (P, n, n): how
    much two inputs count as the same; start (P, n, 4, 4). A partition that a sweep did not change
    by a millionth is left as it is. Float64, on the CPU unless the device is an NVIDIA GPU, the one
    kind that solves the labellings itself.
    """
    home = cost.device
    if home.type not in ("cpu", "cuda", "meta"):
        cost, alike, start = cost.cpu(), alike.cpu(), start.cpu()
    cost, alike, cells = cost.detach().double(), alike.detach().double(
    ), start.shape[2] * start.shape[3]
    beta, gamma, repel = beta / cells, gamma / cells, torch.zeros_like(alike, dtype=torch.float64)
    z = (start[..., None] == torch.arange(cost.shape[1], device=start.device)).double()
    last = objective(z, cost, beta, gamma)
    moving = torch.ones_like(last, dtype=torch.bool)
    for sweep in range(sweeps):
        for i in range(z.shape[1]):
            counts = z.sum((2, 3))  # (P, n, n): cells of each output that show each input
            linear = gamma * (2 * penalty(alike,
                                          counts.sum(1) - counts[:, i], threshold * cells) +
                              repel[:, i])
            z[:, i] = relabel(cost + linear[:, :, None, None], z[:, i], beta, sweep > 0, moving)
        if sweep == sweeps - 2:
            repel = torch.where(moving[:, None, None], distinctness_penalty(z), repel)
        value = objective(z, cost, beta, gamma)
        moving = moving & ((last - value).abs() >= 1e-6 * value.abs())
        last = value
    return z.float().to(home)


def objective(z, cost, beta, gamma):
    """What a sweep should lower, (P,): saliency and prior, unlike neighbours, inputs that several
    outputs use."""
    counts = z.sum((2, 3))
    unlike = z.diff(dim=2).square().sum((1, 2, 3, 4)) + z.diff(dim=3).square().sum((1, 2, 3, 4))
    return ((z * cost.movedim(1, 3)[:, None]).sum((1, 2, 3, 4)) + beta / 2 * unlike
            + gamma * (counts.sum(1).square().sum(1) - counts.square().sum((1, 2))))


def penalty(alike, others, threshold):
    """What each input costs for being used elsewhere, (P, n): columns of `alike` whose input is
    used above the threshold."""
    used = (alike @ others[:, :, None])[:, :, 0] > threshold
    return (alike @ (used * others)[:, :, None])[:, :, 0]


def relabel(cost, z, beta, shared, moving):
    """The best cells (P, 4, 4, n) of one output of each partition; two of its inputs may share a
    cell if `shared`.

    cost (P, n, 4, 4); z (P, 4, 4, n) before, which stays where `moving` (P,) is False. Only inputs
    that the output uses are shared, at most the three it uses most: three labels beside the n, some
    of which may not exist.
    """
    p, n = cost.shape[:2]
    shares = torch.eye(n, dtype=cost.dtype, device=cost.device).expand(p, n, n)
    every = cost.movedim(1, 3)
    if shared:
        couples, exists = _couples(z.sum((1, 2)))
        both = (every.flatten(1, 2) @ couples.mT - BONUS).unflatten(1, cost.shape[2:])
        every = torch.cat([every, torch.where(exists[:, None, None], both, NEVER)], 3)
        shares = torch.cat([shares, couples], 1)
    apart = 1 - torch.eye(shares.shape[1], dtype=cost.dtype, device=cost.device).repeat(p, 1, 1)
    if shared:
        apart[:, n:, :n] = torch.where(couples > 0, 0.25, 1)
        apart[:, :n, n:] = apart[:, n:, :n].mT
    labels = minimise(every, apart, beta, moving).flatten(1)
    new = shares.gather(1, labels[:, :, None].expand(-1, -1, n)).view_as(z)
    return torch.where(moving[:, None, None, None], new, z)


def _couples(counts):
    """Shares (P, 3, n), half and half, of the pairs of the three inputs used most, and which of
    them exist (P, 3)."""
    counts, most = counts.sort(descending=True, stable=True)
    n, most, used = counts.shape[1], most[:, :3], counts[:, :3] > 0
    most = torch.where(used, most, n).sort().values  # n: fewer than three are used
    # a partition may have one input
    first, second, third = F.pad(most, (0, 3 - most.shape[1]), value=n).unbind(1)
    one, two = torch.stack([first, first, second], 1), torch.stack([second, third, third], 1)
    inputs = torch.arange(n, device=counts.device)
    exists = two < n
    halves = ((inputs == one[..., None]) | (inputs == two[..., None])) * exists[..., None]
    return halves.to(counts.dtype) / 2, exists


def distinctness_penalty(z):
    """Cost (P, n, n) for outputs z (P, n, 4, 4, n) that use the same inputs: one is to avoid the
    first of them, the other the second."""
    used = z.sum((2, 3)) > 0
    same = (used[:, :, None] == used[:, None]).all(3) & (used.sum(2) > 1)[:, None]
    # such an output comes before, after this one
    before, after = same.tril(-1).any(2), same.triu(1).any(2)
    order = used.long().cumsum(2)
    return ((used & (order == 1) & after[..., None]) |
            (used & (order == 2) & before[..., None])).to(z.dtype)
