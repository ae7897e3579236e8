"""Shapes: a built-in, procedural data set. Five shapes, striped or dotted, on textured backgrounds.

It is there to look at and to learn with: no download, exact object masks, ten classes in which
neither the shape nor the fill alone decides. It is synthetic, and no evidence about photographs.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import Dataset, channel_mean_std

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt8

    Drawn = tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"], Bool[Tensor, "n 1 h w"]]

Inside = Callable[[Tensor, Tensor, Tensor], Tensor]

IMAGES = dict(train=1000, held_out=1000, height=32, width=32)
FILLS = ("striped", "dotted")
SHAPES = {  # which points (u, v), at distance r from the centre, are in a shape of radius about 1
    "disc": lambda u, v, r: r < 1,
    "square": lambda u, v, r: torch.maximum(u.abs(), v.abs()) < 0.85,
    "triangle": lambda u, v, r: (v < 0.75) & (v > 1.9 * u.abs() - 1.1),
    "ring": lambda u, v, r: (r < 1.05) & (r > 0.5),
    "cross": lambda u, v, r: ((torch.minimum(u.abs(), v.abs()) < 0.36)
                              & (torch.maximum(u.abs(), v.abs()) < 1.05)),
}


def class_names(shapes: Iterable[str]) -> tuple[str, ...]:
    """Each shape in each fill, the order of the labels."""
    return tuple(f"{fill} {shape}" for shape in shapes for fill in FILLS)


CLASSES = class_names(SHAPES)


def load(root: str | Path | None = None, train: int = 1000, test: int = 1000,
         difficulty: float = 0.2, height: int = 32, width: int = 32,
         seed: int = 0) -> tuple[Dataset, Dataset]:
    """Training and test set of so many images, RGB, as many of each class to within one.

    `difficulty` in [0, 1] lowers the contrast of the fill and adds noise and striped and dotted
    distractors to the background. The same `seed` gives the same images. `root` is not needed.
    """
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty is {difficulty}; it must be a number from 0 to 1")
    if min(train, test) < len(CLASSES) or min(height, width) < 8:
        raise ValueError(f"shapes needs at least {len(CLASSES)} images in each set, of at least 8 "
                         f"x 8 pixels; not {train} and {test} of {height} x {width}")
    images, labels, masks = make(train, difficulty, height, width, seed=2 * seed)
    mean, std = channel_mean_std(images)
    first = Dataset(images, labels, CLASSES, mean, std, masks)
    images, labels, masks = make(test, difficulty, height, width, seed=2 * seed + 1)
    return first, Dataset(images, labels, CLASSES, mean, std, masks)


def make(n: int, difficulty: float, height: int, width: int, seed: int,
         shapes: Mapping[str, Inside] = SHAPES) -> Drawn:
    """n images (n, 3, H, W), their class indices, and exact masks of the objects (n, 1, H, W).

    `shapes`: name -> which points are in it; the classes are these, in each fill.
    """
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n)[torch.randperm(n, generator=g)] % (len(shapes) * len(FILLS))
    scene = _background(n, height, width, g)
    for _ in range(2):
        u, v = _place(n, height, width, g, (0.08, 0.14), (0.0, 1.0))
        patch = SHAPES["disc"](u, v, _radius(u, v))
        kind = torch.randint(len(FILLS), (n,), generator=g)
        fill = _fill(u, v, kind, g, n, 1 - 0.4 * difficulty)
        there = torch.rand(n, 1, 1, 1, generator=g) < difficulty
        scene = torch.where(patch & there, fill, scene)
    u, v = _place(n, height, width, g, (0.2, 0.31), (0.3, 0.7))
    r = _radius(u, v)
    of_shape = torch.stack([inside(u, v, r) for inside in shapes.values()])  # (S, n, 1, H, W)
    masks = of_shape[labels // len(FILLS), range(n)]                         # (n, 1, H, W)
    fill = _fill(u, v, labels % len(FILLS), g, n, 1 - 0.7 * difficulty)      # (n, 3, H, W)
    scene = torch.where(masks, fill, scene)
    scene = scene + 0.2 * difficulty * torch.randn(scene.shape, generator=g)
    return (scene.clamp(0, 1) * 255).round().to(torch.uint8), labels, masks


def _background(n, h, w, g):
    """Soft clouds of two colours, with a fine grain, in [0, 1]: (n, 3, h, w)."""
    clouds = F.interpolate(torch.rand(n, 1, 4, 4, generator=g), (h, w), mode="bicubic",
                           align_corners=True)
    one, two = (0.15 + 0.6 * torch.rand(n, 3, 1, 1, generator=g) for _ in range(2))
    return one + (two - one) * clouds.clamp(0, 1) + 0.04 * torch.randn(n, 3, h, w, generator=g)


def _place(n, h, w, g, radius, centre):
    """Coordinates u, v (n, 1, h, w) of n objects at random places, in which each has radius 1."""
    def draw(low, high):
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=g)

    size = min(h, w) * draw(*radius)
    y = (torch.arange(h)[:, None] + 0.5 - h * draw(*centre)) / size
    x = (torch.arange(w) + 0.5 - w * draw(*centre)) / size
    turn = draw(-0.4, 0.4)  # radians
    return x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()


def _radius(u, v):
    return (u.square() + v.square()).sqrt()


def _fill(u, v, kind, g, n, contrast):
    """Two colours in stripes or dots, turned with the object: (n, 3, h, w)."""
    colour = torch.rand(n, 3, 1, 1, generator=g)
    other = (colour + 0.5) % 1.0
    phase = 2 * math.pi * torch.rand(n, 1, 1, 1, generator=g)
    stripes = torch.sin(9 * v + phase)
    dots = torch.sin(9 * u + phase) * torch.sin(9 * v + phase) * 2 - 0.2
    wave = torch.where(kind[:, None, None, None] == 0, stripes, dots).clamp(-1, 1)
    return (colour + other) / 2 + (other - colour) / 2 * wave.sign() * contrast
