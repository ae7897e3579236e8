"""Shapes, few-shot: the built-in set with 14 outlines, 8 training, 3 validation and 3 test.

Each outline comes in both fills, so an episode of five ways has to tell outlines apart that were
never trained. Like `shapes` it is synthetic, and no evidence about photographs.
"""
from pathlib import Path

import torch

from ..data.few_shot import FewShot
from .shapes import SHAPES, class_names, make


def _wide(u, v):
    return torch.maximum(u.abs(), v.abs())


MORE = {  # as in SHAPES: which points (u, v), at distance r from the centre, are in it
    "bar": lambda u, v, r: (u.abs() < 1.05) & (v.abs() < 0.4),
    "half disc": lambda u, v, r: (r < 1) & (v < 0.15),
    "frame": lambda u, v, r: (_wide(u, v) < 0.95) & (_wide(u, v) > 0.5),
    "diamond": lambda u, v, r: u.abs() + v.abs() < 1.1,
    "T": lambda u, v, r: (_wide(u, v) < 0.95) & ((v < -0.4) | (u.abs() < 0.32)),
    "crescent": lambda u, v, r: (r < 1.05) & ((u - 0.55).square() + v.square() > 0.64),
    "L": lambda u, v, r: (_wide(u, v) < 0.95) & ((v > 0.4) | (u < -0.4)),
    "hourglass": lambda u, v, r: (_wide(u, v) < 0.95) & (v.abs() > u.abs() - 0.05),
    "star": lambda u, v, r: r < 0.62 + 0.42 * torch.cos(5 * torch.atan2(u, -v)),
}
ALL = SHAPES | MORE
# held out: the validation classes
IMAGES = dict(train=16 * 60, held_out=6 * 60, height=32, width=32)
PARTS = {"train": tuple(ALL)[:8], "val": tuple(ALL)[8:11], "test": tuple(ALL)[11:]}


def load(root: str | Path | None = None, each: int = 60, difficulty: float = 0.2, height: int = 32,
         width: int = 32, seed: int = 0) -> FewShot:
    """16 training, 6 validation and 6 test classes, `each` images of every one, RGB.

    `difficulty` and `seed` as for the data set shapes. `root` is not needed.
    """
    if each < 1 or min(height, width) < 8 or not 0 <= difficulty <= 1:
        raise ValueError("shapes_fs needs at least 1 image a class, 8 x 8 pixels and a difficulty "
                         f"from 0 to 1, not {each}, {height} x {width} and {difficulty}")
    parts = []
    for k, outlines in enumerate(PARTS.values()):
        names, shapes = class_names(outlines), {name: ALL[name] for name in outlines}
        images, labels, _ = make(each * len(names), difficulty, height, width, 3 * seed + k, shapes)
        parts.append((images, labels, names))
    return FewShot.of(parts)
