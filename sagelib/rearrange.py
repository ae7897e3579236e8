"""Rearrangement: shifting one image over another, Equations 3 and 4 of SAGE (Ma et al., BMVC 2022, section 3.3).

The search never builds a mask. With M of Equation 2 and b the shifted second map,

    M a + (1 - M) b  =  (a^2 + b^2) / (a + b)  =  a + b - 2 / (1/a + 1/b),

so v(tau) is the mass of the first map, plus what stays in the frame of the second, minus a term
that lives only where both have saliency.
"""
import torch
import torch.nn.functional as F

from .saliency import at_least_float32

CHUNK = 1 << 22  # map cells looked at in one go: 16 MB of float32


def offsets(h, w, device=None):
    """All (2h-1)(2w-1) shifts that leave at least one pixel in an h x w frame, integer (N, 2): rows, columns."""
    if h < 1 or w < 1:
        raise ValueError(f"an image has at least one row and one column, not {h} x {w}")
    rows, columns = torch.arange(1 - h, h, device=device), torch.arange(1 - w, w, device=device)
    return torch.cartesian_prod(rows, columns)


def shift(z, tau):
    """Move z (B, C, H, W) by tau = (rows down, columns right), zeros where nothing came: Equation 3.

    out[i, j] = z[i - tau_i, j - tau_j]. `tau` is an integer tensor, (2,) for the whole batch or
    (B, 2) for each image.
    """
    if z.ndim != 4:
        raise ValueError(f"shift needs a tensor of shape (B, C, H, W), not {tuple(z.shape)}")
    tau = torch.as_tensor(tau, device=z.device)
    if tau.is_floating_point() or tau.shape not in {(2,), (len(z), 2)}:
        raise ValueError(f"tau must be integers of shape (2,) or ({len(z)}, 2), not {tau.dtype} {tuple(tau.shape)}")
    i, inside_i = _source(z.shape[2], tau.expand(len(z), 2)[:, 0])
    j, inside_j = _source(z.shape[3], tau.expand(len(z), 2)[:, 1])
    batch = torch.arange(len(z), device=z.device)[:, None, None]
    moved = z.permute(0, 2, 3, 1)[batch, i[:, :, None], j[:, None, :]].permute(0, 3, 1, 2)
    return moved * (inside_i[:, None, :, None] & inside_j[:, None, None, :])


def _source(n, by):
    """For each image, where its n rows (or columns) come from when moved `by`, and which come from inside."""
    at = torch.arange(n, device=by.device) - by[:, None]
    return at.clamp(0, n - 1), (at >= 0) & (at < n)


def total_saliency(a, b, tau):
    """What the mix keeps of both maps at each shift of the second, (B, 1, H, W) x 2 -> (B, N): Equation 4.

    `a` and `b` are saliency maps, at least 0; `tau` is (N, 2) shifts of `b` in pixels, within the
    frame, the same for every pair. Exact for any number of them; memory is bounded by chunks.
    """
    _check_maps(a, b, tau)
    a, b = at_least_float32(a)[:, 0], at_least_float32(b)[:, 0]
    tau = tau.to(a.device)
    step = max(1, CHUNK // max(1, a.numel()))
    lost = [_overlap(a, b, part) for part in tau.split(step)]
    return a.sum((-2, -1))[:, None] + _visible(b, tau) - 2 * torch.cat(lost, 1)


def best_offset(a, b, tau):
    """The shift of the second map that keeps the most saliency, (B, 2); the first of equals. Section 3.3.

    Arguments as in `total_saliency`. tau* = argmax of v over the candidates, for each pair.
    """
    v = total_saliency(a, b, tau).nan_to_num(nan=-torch.inf)
    places = torch.arange(len(tau), device=v.device)
    first = torch.where(v == v.amax(1, keepdim=True), places, len(tau) - 1).amin(1)
    return tau.to(a.device)[first]


def _visible(b, tau):
    """Mass of each map (B, H, W) that stays in the frame after each shift: four look-ups in an integral image."""
    h, w = b.shape[1:]
    table = F.pad(b.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    top, bottom = (-tau[:, 0]).clamp(0, h), (h - tau[:, 0]).clamp(0, h)
    left, right = (-tau[:, 1]).clamp(0, w), (w - tau[:, 1]).clamp(0, w)
    inside = table[:, bottom, right] - table[:, top, right] - table[:, bottom, left] + table[:, top, left]
    return inside.clamp(min=0).to(b.dtype)


def _overlap(a, b, tau):
    """Sum of 1 / (1/a + 1/b shifted) over the frame, (B, N): only pixels where both have saliency count."""
    h, w = a.shape[1:]
    inverse_a = (1 / a).flatten(1)
    inverse_b = F.pad(1 / b, (0, 1, 0, 1), value=torch.inf).flatten(1)  # one row and column of "nothing there"
    i, inside_i = _source(h, tau[:, 0])
    j, inside_j = _source(w, tau[:, 1])
    i, j = torch.where(inside_i, i, h), torch.where(inside_j, j, w)
    where = (i[:, :, None] * (w + 1) + j[:, None, :]).flatten(1)
    together = inverse_b[:, where] + inverse_a[:, None]
    return together.reciprocal_().sum(-1)


def _check_maps(a, b, tau):
    if a.ndim != 4 or a.shape[1] != 1 or a.shape != b.shape:
        raise ValueError("total saliency needs two sets of maps of one shape (B, 1, H, W), "
                         f"not {tuple(a.shape)} and {tuple(b.shape)}")
    if tau.ndim != 2 or tau.shape[1] != 2 or len(tau) == 0 or tau.is_floating_point():
        raise ValueError("tau must be integers of shape (N, 2), rows and columns, with at least one candidate, "
                         f"not {tau.dtype} {tuple(tau.shape)}")
