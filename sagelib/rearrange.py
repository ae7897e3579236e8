"""Rearrangement: shifting one image over another, Equations 3 and 4.

Source: SAGE (Ma et al., BMVC 2022), section 3.3.

The search never builds a mask. With M of Equation 2 and b the shifted second map,

    M a + (1 - M) b  =  (a^2 + b^2) / (a + b)  =  a + b - 2 / (1/a + 1/b),

so v(tau) is the mass of the first map, plus what stays in the frame of the second, minus a term
that lives only where both have saliency. `search/` has that in the forms that suit sizes and
devices.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from . import search
from .saliency import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def offsets(h: int, w: int, device: torch.device | str | None = None) -> Int[Tensor, "n 2"]:
    """All (2h-1)(2w-1) shifts (rows, columns) that keep a pixel in an h x w frame, (N, 2)."""
    if h < 1 or w < 1:
        raise ValueError(f"an image has at least one row and one column, not {h} x {w}")
    rows, columns = torch.arange(1 - h, h, device=device), torch.arange(1 - w, w, device=device)
    return torch.cartesian_prod(rows, columns)


def offset_at(k: Int[Tensor, "*n"], h: int, w: int) -> Int[Tensor, "*n 2"]:
    """Shifts (..., 2) at places k (...) of the list of `offsets`, which is not made."""
    return torch.stack([k // (2 * w - 1) - (h - 1), k % (2 * w - 1) - (w - 1)], -1)


def shift(z: Float[Tensor, "b c h w"], tau: Int[Tensor, "... 2"],
          of: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b c h w"]:
    """Move z (B, C, H, W) by tau = (rows down, columns right), filling with zeros. Equation 3.

    out[i, j] = z[i - tau_i, j - tau_j]. `tau` is an integer tensor, (2,) for the whole batch or
    (B, 2) for each image. With `of`, integers (B,), z[of] is moved.
    """
    if z.ndim != 4:
        raise ValueError(f"shift needs a tensor of shape (B, C, H, W), not {tuple(z.shape)}")
    tau = torch.as_tensor(tau, device=z.device)
    if tau.is_floating_point() or tau.shape not in {(2,), (len(z), 2)}:
        raise ValueError(f"tau must be integers of shape (2,) or ({len(z)}, 2), not {tau.dtype} "
                         f"{tuple(tau.shape)}")
    n, c, h, w = z.shape
    i, j = tau.expand(n, 2)[:, :, None].unbind(1)
    rows = torch.arange(h, device=z.device) - i
    # row h, and w columns on either side, are zeros
    rows = torch.where((rows >= 0) & (rows < h), rows, h)
    windows = F.pad(z, (w, w, 0, 1)).unfold(3, w, 1)       # a view: (n, c, h + 1, 2w + 1, w)
    image = torch.arange(n, device=z.device) if of is None else of
    channel = torch.arange(c, device=z.device)[:, None]
    return windows[image[:, None, None], channel, rows[:, None], (w - j).clamp(0, 2 * w)[:, None]]


def total_saliency(a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"],
                   tau: Int[Tensor, "... n 2"]) -> Float[Tensor, "b n"]:
    """Saliency that the mix keeps at each shift of the second map, (B, N). Equation 4.

    `a` and `b` are saliency maps, at least 0; `tau` is (N, 2) shifts of `b` in pixels, the same for
    every pair, or (B, N, 2), those of each pair. Exact for any number of them, in a few megabytes
    of memory; no value is read on the host.
    """
    _check_maps(a, b, tau)
    a, b = at_least_float32(a.detach())[:, 0], at_least_float32(b.detach())[:, 0]
    return search.search(a, b, tau.to(a.device))


def best_offset(a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"],
                tau: Int[Tensor, "... n 2"]) -> Int[Tensor, "b 2"]:
    """The shift of the second map that keeps the most saliency, (B, 2). Section 3.3.

    Arguments as in `total_saliency`. tau* = argmax of v over the candidates, for each pair; the
    first of equals.
    """
    v = total_saliency(a, b, tau).nan_to_num_(nan=-torch.inf)
    tau, best = tau.to(a.device), v.argmax(1)
    return tau[best] if tau.ndim == 2 else tau.gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]


def _check_maps(a, b, tau):
    if a.ndim != 4 or a.shape[1] != 1 or a.shape != b.shape:
        raise ValueError("total saliency needs two sets of maps of one shape (B, 1, H, W), "
                         f"not {tuple(a.shape)} and {tuple(b.shape)}")
    if (tau.ndim not in (2, 3) or tau.shape[-1] != 2 or tau.shape[-2] == 0
            or tau.is_floating_point() or (tau.ndim == 3 and len(tau) != len(a))):
        raise ValueError(
            f"tau must be integers of shape (N, 2) or ({len(a)}, N, 2), rows and "
            f"columns, with at least one candidate, not {tau.dtype} {tuple(tau.shape)}")
