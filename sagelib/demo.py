"""The demo: the same photographs mixed by every method, and how much saliency each mix keeps.

`python -m sagelib demo` trains a small network for some seconds and writes one figure. The numbers
are measured on the spot. They say how much of what the network looks at is left in a mixed image,
and nothing about the accuracy that training with the method gives.
"""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import catalog, files, methods, models, show, teaching
from .losses import one_hot
from .rearrange import shift
from .saliency import normalise, smooth

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from .data.dataset import Dataset
    from .method import Mixed

IMAGES, SHOWN = 96, 4  # images that are mixed, and those of them in the figure
SMOOTHING = 3          # of the maps, in pixels of 96: as one pixel of 32
NOT_SHOWN = ("vanilla", "sage_controls")  # the images as they are; SAGE, with its default options


def run(out: str | Path, seed: int = 0) -> dict[str, float | None]:
    """Write the figure to `out` and return method -> the saliency that its mixes keep.

    1 is what an image of one network keeps by itself, 2 that of both images of a mix; None where a
    method gives no mask, or mixes inside the network.
    """
    photos, net = teaching.photographs(seed=seed)
    photos = photos[torch.arange(IMAGES)]
    x, y = photos.normalised(), one_hot(photos.labels, len(photos.classes))
    maps = normalise(smooth(teaching.saliency_maps(net, x, y), SMOOTHING))  # (B, 1, H, W)
    names = [n for n in catalog.suited(methods, models, "preactresnet18") if n not in NOT_SHOWN]
    names.sort(key=[*show.COLOURS, *names].index)  # the paper's first
    mixes = {name: mixed_by(name, photos, net, seed) for name in names}
    columns = {"images": x[:SHOWN], **{name: mixed.x[:SHOWN] for name, mixed in mixes.items()}}
    figure = show.grid_figure(list(zip(*(photos.pixels(z) for z in columns.values()), strict=True)),
                              [name.replace("_", "\n") for name in columns], size=1.1)
    kind = Path(out).suffix.lstrip(".") or "png"
    files.replace(out, lambda file: figure.savefig(file, format=kind, dpi=100))
    return {name: kept(mixed, maps) for name, mixed in mixes.items()}


def mixed_by(name: str, photos: Dataset, net: nn.Module, seed: int) -> Mixed:
    """All the photographs, mixed by a method of the catalogue with its default options.

    Where a method can draw for each image instead of for the batch, it does.
    """
    options = {"mean": photos.mean, "std": photos.std, "per_image": True}
    known = {k: v for k, v in options.items() if k in catalog.defaults(methods, name)}
    method = catalog.load(methods, name, **known).seed(seed)
    return method.mix(photos.normalised(), one_hot(photos.labels, len(photos.classes)), net)


def kept(mixed: Mixed, maps: Float[Tensor, "b 1 h w"]) -> float | None:
    """The saliency that mixed images keep of their own map and their partner's, 1 for each image.

    The mean over the batch of Equation 4's total saliency, for the mask that the method used.
    """
    if mixed.mask is None or mixed.pair is None:
        return None
    partner = maps[mixed.pair]
    if mixed.tau is not None:
        partner = shift(partner, mixed.tau)
    both = mixed.mask * maps + (1 - mixed.mask) * partner  # (B, 1, H, W)
    return float(both.sum((1, 2, 3)).mean())


def table(found: dict[str, float | None]) -> str:
    """The numbers as text, the most saliency first."""
    order = sorted(found, key=lambda name: -(found[name] or 0))
    width = max(map(len, found))
    return "\n".join(f"{name:{width}}  " + ("-" if (v := found[name]) is None else f"{v:.2f}")
                     for name in order)
