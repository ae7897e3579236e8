"""Equation 4 by tensor operations, exact, on any device, for one set of shifts or one per image."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def gather(a: Float[Tensor, "b h w"], b: Float[Tensor, "b h w"],
           tau: Int[Tensor, "... n 2"]) -> Float[Tensor, "b n"]:
    """v from the second map gathered by index, in chunks: no shift is read on the host."""
    step = max(1, cpu.BLOCK // max(1, a.numel()))
    added = [_gathered(1 / a, b, part) for part in tau.split(step, -2)]
    return a.sum((1, 2))[:, None] + torch.cat(added, 1)


def _gathered(inverse_a, b, tau):
    """What b adds to v at each shift: mass in the frame less twice the overlap term, (B, N)."""
    h, w = b.shape[1:]
    padded = F.pad(b, (0, 1, 0, 1)).flatten(1)  # a row and a column of "nothing there"
    i, j = (torch.arange(n, device=tau.device) - by[..., None]
            for n, by in ((h, tau[..., 0]), (w, tau[..., 1])))
    i, j = torch.where((i >= 0) & (i < h), i, h), torch.where((j >= 0) & (j < w), j, w)
    where = (i[..., :, None] * (w + 1) + j[..., None, :]).flatten(-2)
    if tau.ndim == 2:
        there = padded[:, where]                                        # (B, N, H W)
    else:
        there = padded.gather(1, where.flatten(1)).view(where.shape)    # (B, N, H W)
    met = there.reciprocal().add_(inverse_a.flatten(1)[:, None]).reciprocal_()
    return there.sub_(met, alpha=2).sum(-1)
