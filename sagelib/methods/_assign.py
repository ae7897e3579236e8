"""Co-Mixup's search: which input each output shows in each cell, output after output, sweep after sweep.

The steps and their order are those of the authors' code; the difference is that each labelling is solved exactly
(_potts.py).
"""
import numpy as np
import torch

from . import _potts

NEVER = 1e3  # cost of a label that does not exist
BONUS = 5e-4  # what a cell shared by two inputs is cheaper than their mean


@torch.library.custom_op("sagelib::assign", mutates_args=())
def assign(cost: torch.Tensor, alike: torch.Tensor, start: torch.Tensor, beta: float, gamma: float, threshold: float,
           sweeps: int) -> torch.Tensor:
    """Shares (P, n, 4, 4, n) of each input in each output's cells: sweeps over the outputs, each labelled exactly.

    P partitions at once. cost (P, n, 4, 4): of showing an input in a cell; alike (P, n, n): how much two inputs count
    as the same; start (P, n, 4, 4). Solved on the host, whatever the device.
    """
    cost, alike = (t.detach().cpu().double().numpy() for t in (cost, alike))
    z = np.eye(cost.shape[1])[start.cpu().numpy()]
    cells = start.shape[2] * start.shape[3]
    beta, gamma, repel = beta / cells, gamma / cells, np.zeros(alike.shape)
    last = objective(z, cost, beta, gamma)
    going, counts = np.arange(len(z)), z.sum((2, 3))  # counts (P, n, n): cells of each output that show each input
    for sweep in range(sweeps):
        for i in range(z.shape[1]):
            others = counts[going].sum(1) - counts[going, i]
            linear = gamma * (2 * penalty(alike[going], others, threshold * cells) + repel[going, i])
            z[going, i] = relabel(cost[going] + linear[:, :, None, None], z[going, i], beta, shared=sweep > 0)
            counts[going, i] = z[going, i].sum((1, 2))
        if sweep == sweeps - 2:
            for p in going:
                resolve(z[p], repel[p])
        value = objective(z, cost, beta, gamma)
        going = going[(abs(last - value) >= 1e-6 * abs(value))[going]]
        last = value
        if not len(going):
            break
    return torch.from_numpy(z).float().to(start.device)


@assign.register_fake
def _(cost, alike, start, beta, gamma, threshold, sweeps):
    return cost.new_empty((*start.shape, cost.shape[1]), dtype=torch.float32)


def objective(z, cost, beta, gamma):
    """What a sweep should lower, (P,): saliency and prior, unlike neighbours, inputs that several outputs use."""
    counts = z.sum((2, 3))
    unlike = (np.diff(z, axis=2)**2).sum((1, 2, 3, 4)) + (np.diff(z, axis=3)**2).sum((1, 2, 3, 4))
    return ((z * np.moveaxis(cost, 1, 3)[:, None]).sum((1, 2, 3, 4)) + beta / 2 * unlike
            + gamma * ((counts.sum(1)**2).sum(1) - (counts**2).sum((1, 2))))


def penalty(alike, others, threshold):
    """What each input costs for being used elsewhere, (P, n): columns of `alike` whose input is used above the
    threshold."""
    used = (alike @ others[:, :, None])[:, :, 0] > threshold
    return (alike @ (used * others)[:, :, None])[:, :, 0]


def relabel(cost, z, beta, shared):
    """The best cells (P, 4, 4, n) of one output of each partition; two of its inputs may share a cell if `shared`.

    cost (P, n, 4, 4); z (P, 4, 4, n) before. Only inputs that the output uses are shared, at most the three it uses
    most.
    """
    couples = [_couples(counts) if shared else [] for counts in z.sum((1, 2))]
    p, n, more = len(cost), cost.shape[1], max(map(len, couples))
    apart, shares = (np.repeat(t[None], p, 0) for t in (1 - np.eye(n + more), np.eye(n + more, n)))
    every = np.full((p, *z.shape[1:3], n + more), NEVER)
    every[..., :n] = np.moveaxis(cost, 1, 3)
    for k, own in enumerate(couples):
        for label, couple in enumerate(own, start=n):
            apart[k, label, couple] = apart[k, couple, label] = 0.25
            shares[k, label, couple] = 0.5
            every[k, :, :, label] = cost[k, list(couple)].mean(0) - BONUS
    return shares[np.arange(p)[:, None, None], _potts.minimise(every, apart, beta)]


def _couples(counts):
    used = np.flatnonzero(counts)
    if len(used) > 3:
        used = np.sort(np.argsort(-counts, kind="stable")[:3])
    return [(a, b) for k, a in enumerate(used) for b in used[k + 1:]]


def resolve(z, repel):
    """Outputs of one partition that use the same inputs are told apart: one is to avoid the first, the other the
    second."""
    used = [tuple(np.flatnonzero(q)) for q in z.sum((1, 2))]
    for i, one in enumerate(used):
        for j in range(i + 1, len(used)):
            if len(one) > 1 and used[j] == one:
                repel[i, one[0]] = repel[j, one[1]] = 1
