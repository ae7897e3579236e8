"""The exact optimum of Puzzle Mix's labelling problem: one minimum cut for the whole batch.

Each site of a grid takes a label 0, 1 or 2. A label has a cost at its site, and two neighbours pay
w (l - l')^2 / 4. That is convex in l - l', so Ishikawa's graph ("Exact Optimization for Markov
Random Fields with Convex Priors", PAMI 2003) has the optimum as its minimum cut: two nodes a site,
node k on the source's side when the label is above k. The difference from the authors' code: theirs
runs swap moves of gco, which miss the optimum on up to a third of the images.
"""
import numpy as np
import torch

from ..machine import triton_kernels

ENOUGH = 1 << 29  # capacities are 32-bit integers: costs are scaled so that none comes above this


def energy(labels, unary, down, right):
    """Cost of labels (B, h, w) in {0, 1, 2}, (B,), float64, on the CPU: sites plus neighbours.

    unary (B, 3, h, w); down (B, h - 1, w) and right (B, h, w - 1): the weights w of vertical and
    horizontal pairs.
    """
    labels, unary, down, right = (z.cpu() for z in (labels, unary, down, right))
    sites = unary.double().gather(1, labels[:, None]).sum((1, 2, 3))
    vertical, horizontal = labels.diff(dim=1), labels.diff(dim=2)
    return sites + (down * vertical**2).double().sum(
        (1, 2)) / 4 + (right * horizontal**2).double().sum((1, 2)) / 4


@torch.library.custom_op("sagelib::min_cut", mutates_args=())
def min_cut(unary: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The labels (B, h, w), int64, of least `energy`; the smallest of equals. Weights must not be
    negative.

    On an NVIDIA GPU it is solved there (min_cut_triton.py), else on the host (scipy).
    """
    if unary.is_cuda and (on_gpu := triton_kernels(__package__,
                                                   "min_cut_triton")) and on_gpu.fits(unary):
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
    """Ishikawa's graph with integer capacities: nodes (2, B, h, w), then the source, then the
    sink."""
    from scipy.sparse import csr_matrix
    node = np.arange(2 * unary[:, 0].size, dtype=np.int32).reshape(2, *unary[:, 0].shape)
    slope = np.stack([unary[:, 1] - unary[:, 0], unary[:, 2] - unary[:, 1]])
    source, sink = np.full_like(node, node.size), np.full_like(node, node.size + 1)
    edges = [(source, node, np.maximum(-slope, 0)), (node, sink, np.maximum(slope, 0))]
    for w, one, two in (
        (down, node[:, :, :-1], node[:, :, 1:]),
        (right, node[:, :, :, :-1], node[:, :, :, 1:]),
    ):
        both = np.broadcast_to(w / 4, one.shape)
        edges += [(one, two, both), (two, one, both), (one[1], two[0], w / 2),
                  (two[1], one[0], w / 2)]
    most = max(
        abs(slope).max(initial=0) + 4 * max(down.max(initial=0), right.max(initial=0)), 1e-30)
    # a label above 1 is above 0
    edges.append((node[1], node[0], np.full(unary[:, 0].shape, 2 * most)))
    tail, head, capacity = (np.concatenate([e[k].ravel() for e in edges]) for k in range(3))
    capacity = np.rint(capacity * (ENOUGH / most)).astype(np.int32)
    used = capacity > 0
    return csr_matrix((capacity[used], (tail[used], head[used])), shape=(node.size + 2,) * 2)
