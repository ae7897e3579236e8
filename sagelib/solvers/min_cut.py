"""The exact optimum of Puzzle Mix's labelling problem: one minimum cut for the whole batch.

Each site of a grid takes a label 0, 1 or 2. A label has a cost at its site, and two neighbours pay
w (l - l')^2 / 4. That is convex in l - l', so Ishikawa's graph ("Exact Optimization for Markov
Random Fields with Convex Priors", PAMI 2003) has the optimum as its minimum cut: two nodes a site,
node k on the source's side when the label is above k. The difference from the authors' code: theirs
runs swap moves of gco, which miss the optimum on up to a third of the images.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..machine import triton_kernels

if TYPE_CHECKING:
    from jaxtyping import Float, Int

ENOUGH = 1 << 29  # capacities are 32-bit integers: costs are scaled so that none comes above this


def energy(labels: Int[Tensor, "b h w"], unary: Float[Tensor, "b 3 h w"],
           down: Float[Tensor, "b h-1 w"], right: Float[Tensor, "b h w-1"]) -> Float[Tensor, " b"]:
    """Cost of labels in {0, 1, 2}, (B,), float64, on the CPU: sites plus neighbours.

    down, right: the weights w of vertical and horizontal neighbours.
    """
    labels, unary, down, right = (z.cpu() for z in (labels, unary, down, right))
    sites = unary.double().gather(1, labels[:, None]).sum((1, 2, 3))
    vertical = (down * labels.diff(dim=1)**2).double().sum((1, 2))
    horizontal = (right * labels.diff(dim=2)**2).double().sum((1, 2))
    return sites + vertical / 4 + horizontal / 4


@torch.library.custom_op("sagelib::min_cut", mutates_args=(),
                         schema="(Tensor unary, Tensor down, Tensor right) -> Tensor")
def min_cut(unary: Float[Tensor, "b 3 h w"], down: Float[Tensor, "b h-1 w"],
            right: Float[Tensor, "b h w-1"]) -> Int[Tensor, "b h w"]:
    """The labels (B, h, w), int64, of least `energy`; the smallest of equals.

    Weights must not be negative. On an NVIDIA GPU it is solved there (min_cut_triton.py), else on
    the host (scipy).
    """
    on_gpu = triton_kernels(__package__, "min_cut_triton") if unary.is_cuda else None
    if on_gpu is not None and on_gpu.fits(unary):
        return on_gpu.min_cut(unary, down, right)
    labels = _solve(*(t.detach().cpu().double().numpy() for t in (unary, down, right)))
    return torch.from_numpy(labels).to(unary.device)


@min_cut.register_fake
def _(unary, down, right):
    return unary.new_empty((len(unary), *unary.shape[2:]), dtype=torch.int64)


def _solve(unary, down, right):
    try:
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow
    except ImportError as error:
        raise ImportError(
            "Puzzle Mix's solver is scipy's maximum flow: pip install scipy") from error
    count = unary[:, 0].size
    network = _graph(unary, down, right)
    left = network - maximum_flow(network, 2 * count, 2 * count + 1).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    above = np.zeros(2 * count + 2, dtype=np.int64)
    above[breadth_first_order(left, 2 * count, return_predecessors=False)] = 1
    return above[:2 * count].reshape(2, *unary[:, 0].shape).sum(0)


def _graph(unary, down, right):
    """Ishikawa's graph with integer capacities: nodes (2, B, h, w), then source, then sink."""
    from scipy.sparse import csr_matrix
    b, _, h, w = unary.shape
    node = np.arange(2 * b * h * w, dtype=np.int32).reshape(2, b, h, w)
    slope = np.stack([unary[:, 1] - unary[:, 0], unary[:, 2] - unary[:, 1]])  # (2, B, h, w)
    source, sink = np.full_like(node, node.size), np.full_like(node, node.size + 1)
    edges = [(source, node, np.maximum(-slope, 0)), (node, sink, np.maximum(slope, 0))]
    for weight, one, two in (
        (down, node[:, :, :-1], node[:, :, 1:]),
        (right, node[:, :, :, :-1], node[:, :, :, 1:]),
    ):
        both = np.broadcast_to(weight / 4, one.shape)
        edges += [(one, two, both), (two, one, both),
                  (one[1], two[0], weight / 2), (two[1], one[0], weight / 2)]
    heaviest = max(down.max(initial=0), right.max(initial=0))
    most = max(abs(slope).max(initial=0) + 4 * heaviest, 1e-30)
    # a label above 1 is above 0
    edges.append((node[1], node[0], np.full((b, h, w), 2 * most)))
    tail, head, capacity = (np.concatenate([e[k].ravel() for e in edges]) for k in range(3))
    capacity = np.rint(capacity * (ENOUGH / most)).astype(np.int32)
    used = capacity > 0
    return csr_matrix((capacity[used], (tail[used], head[used])), shape=(node.size + 2,) * 2)
