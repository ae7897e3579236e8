"""Co-Mixup: J.-H. Kim, W. Choo, H. Jeong, H. O. Song, "Co-Mixup: Saliency Guided Joint Mixup with
Supermodular Diversity", ICLR 2021. https://arxiv.org/abs/2102.03065, with the settings of the SAGE
paper's comparison.

A partition of up to 20 images is mixed at once: each output takes an input for each of 4 x 4 cells,
so that much saliency shows, neighbours agree, and outputs differ. We follow the authors' code, with
these differences:
- each labelling is solved exactly; theirs by swap moves, which stop at local optima
  (`solver="swap"`);
- a partition of one image, which stops their code, comes back as it is;
- images of any size. The cells of a side that 4 does not divide are rounded up, the last is cut.

Code and paper differ too: above the threshold of the diversity penalty the code keeps columns of
the matrix A, not entries of A times the counts (`penalty`), lambda is a Dirichlet(2) draw in the
prior, and the label counts only the area.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import cross_entropy, logits_of
from ..method import Mixed, SaliencyGuided, check_pairs, check_saliency, choice, number, whole
from ..modes import without_autocast
from ..saliency import normalise
from ..solvers.assignment import assign

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CELLS = 4


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
        s: Float[Tensor, "b 1 h w"] | Float[Tensor, "b h w"], prior: Float[Tensor, "*p n"],
        start: Int[Tensor, "*p n i j"], distance: Float[Tensor, "*p n n"], *, beta: float = 0.32,
        gamma: float = 1.0, eta: float = 0.05, omega: float = 0.001, threshold: float = 0.83,
        sweeps: int = 4, solver: str = "exact") -> Mixed:
    """Mix one partition: n images in, n out, each made of the inputs' cells.

    s: saliency; prior (n,): a Dirichlet draw; start (n, 4, 4): the first input of each output's
    cells; distance (n, n): of the salient regions. beta: smoothness, gamma: diversity, eta: weight
    of the prior, omega: of the distances, threshold: share of an output above which inputs repel;
    solver: of the labellings, "exact" or the authors' "swap".
    With prior (P, n), start (P, n, 4, 4) and distance (P, n, n), x holds P partitions one after the
    other. Returns Mixed with x and y; labels are the shares of the area.
    """
    check_pairs(x, y)
    b, _, h, w = x.shape
    p, n = prior.shape if prior.ndim == 2 else (1, len(prior))
    sizes = s.numel(), p * n, start.numel(), distance.numel()
    if sizes != (b * h * w, b, b * CELLS**2, b * n):
        found = [tuple(t.shape) for t in (s, prior, start, distance)]
        raise ValueError(f"for {b} images of {h} x {w}: saliency {(b, 1, h, w)}, prior {(b,)}, "
                         f"start {(b, CELLS, CELLS)}, distance {(b, b)}; not {found}")
    with without_autocast(x.device):  # half precision is too coarse for images and labels
        return _mix(x, y, s.float(), prior.float().reshape(p, n), start.reshape(p, n, CELLS, CELLS),
                    distance.float().reshape(p, n, n), beta, gamma, eta, omega, threshold, sweeps,
                    solver)


def _mix(x, y, s, prior, start, distance, beta, gamma, eta, omega, threshold, sweeps, solver):
    (b, _, h, w), (p, n) = x.shape, prior.shape
    tall, wide = -(-h // CELLS), -(-w // CELLS)
    cut = (0, wide * CELLS - w, 0, tall * CELLS - h)
    shown = normalise(F.avg_pool2d(F.pad(s.reshape(b, 1, h, w), cut), (tall, wide)))
    shown = shown.reshape(p, n, CELLS, CELLS)
    cost = -shown - eta / CELLS**2 * (prior + 1e-8).log()[:, :, None, None]  # (P, n, 4, 4)
    near = distance / distance.sum((1, 2), keepdim=True).clamp(min=1e-12)
    alike = (1 - omega) * torch.eye(n, device=x.device) + omega * n * near  # (P, n, n)
    z = assign(cost, alike, start, beta, gamma, threshold, sweeps, solver)  # (P, n, 4, 4, n)
    cells = F.pad(x, cut).reshape(p, n, -1, CELLS, tall, CELLS, wide)
    images = torch.einsum("poijk,pkciajb->pociajb", z.to(x.dtype), cells)
    images = images.reshape(b, -1, CELLS * tall, CELLS * wide)
    area = F.pad(x.new_ones(1, 1, h, w, dtype=torch.float32), cut)
    area = F.avg_pool2d(area, (tall, wide))[0, 0]
    share = torch.einsum("poijk,ij->pok", z, area / area.sum())  # the border cuts some cells
    labels = (share.to(y.dtype) @ y.reshape(p, n, -1)).flatten(0, 1)
    # sums of shares can end a rounding above 1
    return Mixed(images[:, :, :h, :w], labels.clamp(max=1))


def distances(s: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b b"]:
    """How far apart the images' most salient 8 x 8 pixels are, (B, B): rows plus columns."""
    window = [min(8, size) for size in s.shape[2:]]
    z = F.avg_pool2d(s.float(), window, 1)
    peak = z.flatten(1).argmax(1)
    at = torch.stack([peak // z.shape[3], peak % z.shape[3]], 1).float()
    return (at[:, None] - at[None]).abs().sum(2)


@dataclass(kw_only=True)
class CoMixup(SaliencyGuided):
    """Partitions of up to `partition` consecutive images; the clean pass trains as well.

    clean: weight of the clean loss, a regulariser: 2 * cross-entropy / classes (the size of "bce"),
    or of plain cross-entropy. bn: BatchNorm in the clean pass, as in SAGE. solver: "exact", or
    "swap", the authors' approximate one, on the host. The other fields are those of `mix`.
    """

    NEEDS, LABEL = "gradient, sweeps of labellings", "area"

    partition: int = whole(20, 1, 1000)
    beta: float = number(0.32, 0, 100)
    gamma: float = number(1.0, 0, 100)
    eta: float = number(0.05, 0, 100)
    omega: float = number(0.001, 0, 1)
    threshold: float = number(0.83, 0, 100)
    alpha: float = number(2.0, 1e-3, 100)
    sweeps: int = whole(4, 1, 100)
    clean: float = number(1.0, 0, 100)
    bn: str = choice("train", "batch")
    solver: str = choice("exact", "swap", later=True)

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        clean, s = self.clean_pass(net, x, y, scaler, reused=self.clean > 0)
        mixed = self.mix_with_saliency(x, y, s)
        self.last = mixed
        return self.clean * clean + self.loss_of(net(mixed.x), mixed.y)

    def saliency_loss(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        size = 2 / max(2, y.shape[1]) if self.criterion == "bce" else 1
        return size * cross_entropy(logits_of(out, y.shape[1]), y)

    def units(self) -> int:
        return 6 if self.clean > 0 else 5

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        check_saliency(s, x)
        full = len(x) // self.partition * self.partition
        far = distances(s)
        parts = []
        for part, n in ((slice(full), self.partition), (slice(full, len(x)), len(x) - full)):
            if len(x[part]):
                parts.append(self._mix_partitions(x[part], y[part], s[part], far[part, part], n))
        return Mixed(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]), saliency=s)

    def _mix_partitions(self, x, y, s, far, n):
        """Partitions of n images each, one after the other, mixed."""
        p = len(x) // n
        prior = self.draw_dirichlet(self.alpha, x.device, p, n)
        start = self.draw_integers(n, x.device, p, n, CELLS, CELLS)
        blocks = far.reshape(p, n, p, n).diagonal(dim1=0, dim2=2).movedim(-1, 0)  # (P, n, n)
        return mix(x, y, s, prior, start, blocks, beta=self.beta, gamma=self.gamma, eta=self.eta,
                   omega=self.omega, threshold=self.threshold, sweeps=self.sweeps,
                   solver=self.solver)


build = CoMixup
