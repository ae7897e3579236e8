"""Photographs: square crops of six free photographs. The class is the object in the crop, or none.

The photographs come with scikit-image and scikit-learn; nothing is downloaded. Their licences:

- astronaut: Eileen Collins, by NASA, public domain (https://flic.kr/p/r9qvLn).
- cat: Chelsea, by Stefan van der Walt, CC0.
- coffee: by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0.
- flower: by the Flickr user vultilion, CC BY 2.0
  (https://www.flickr.com/photos/vultilion/6056698931/). Cropped and resized here. (The README of
  scikit-learn names the pagoda's author beside this address.)
- pagoda: by the Flickr user danielbuechele, CC BY 2.0
  (https://www.flickr.com/photos/danielbuechele/6061409035/). Cropped and resized here.
- rocket: DSCOVR on a Falcon 9, by SpaceX, public domain
  (https://www.flickr.com/photos/spacexphotos/16511594820/).

The seventh class, surroundings, has crops of all six without their objects. Without it a network
recognises the flower by the green behind it, and its saliency maps show that. Training and test
crops are different draws from the same photographs: the set is there to look at, and an accuracy on
it says nothing about photographs that a network has not seen.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ..data.dataset import Dataset, channel_mean_std

IMAGES = dict(train=700, held_out=350, height=32, width=32)


@dataclass(frozen=True)
class Photograph:
    """Where a photograph is, and what is in it; all in its own pixels, (x, y).

    core: left, top, right and bottom of what every crop of it shows. sides: those of the smallest
    and of the largest crop. outline: a polygon around the object, drawn by hand.
    """

    package: str
    name: str
    core: tuple[int, int, int, int]
    sides: tuple[int, int]
    outline: tuple[tuple[int, int], ...]


PHOTOGRAPHS = {
    "astronaut": Photograph("skimage", "astronaut", (175, 30, 290, 190), (220, 420), (
        (185, 35), (215, 17), (255, 18), (288, 45), (303, 85), (290, 125), (262, 165), (297, 205),
        (303, 240), (340, 272), (362, 348), (310, 370), (282, 430), (285, 511), (20, 511),
        (30, 400), (58, 265), (113, 235), (115, 180), (150, 150), (185, 145), (157, 110),
        (157, 70))),
    "cat": Photograph("skimage", "chelsea", (135, 80, 345, 265), (225, 300), (
        (35, 0), (330, 0), (392, 0), (365, 65), (355, 150), (330, 215), (300, 275), (240, 285),
        (200, 299), (0, 299), (0, 130), (38, 60))),
    "coffee": Photograph("skimage", "coffee", (200, 40, 395, 220), (260, 400), (
        (173, 90), (190, 50), (235, 25), (290, 17), (345, 25), (390, 50), (423, 70), (425, 105),
        (460, 150), (479, 215), (465, 285), (420, 340), (350, 375), (270, 385), (190, 370),
        (120, 320), (82, 250), (77, 180), (105, 115))),
    "flower": Photograph("sklearn", "flower.jpg", (230, 140, 385, 300), (240, 427), (
        (170, 215), (188, 150), (215, 115), (265, 95), (315, 85), (375, 97), (415, 125),
        (435, 170), (445, 220), (435, 275), (405, 320), (350, 348), (300, 357), (235, 340),
        (195, 300), (175, 260))),
    "pagoda": Photograph("sklearn", "china.jpg", (130, 35, 295, 215), (240, 427), (
        (195, 30), (215, 30), (220, 65), (275, 100), (322, 125), (300, 135), (330, 180),
        (325, 240), (350, 255), (345, 310), (370, 340), (345, 360), (215, 385), (150, 335),
        (72, 340), (62, 265), (105, 195), (85, 180), (120, 155), (95, 125), (175, 90))),
    "rocket": Photograph("skimage", "rocket", (305, 122, 338, 185), (80, 150), (
        (309, 145), (321, 125), (333, 145), (336, 180), (336, 340), (350, 400), (295, 400),
        (309, 340), (309, 180))),
}
SURROUNDINGS = "surroundings"
CLASSES = (*PHOTOGRAPHS, SURROUNDINGS)


def load(root: str | Path | None = None, train: int = 700, test: int = 350, size: int = 32,
         seed: int = 0) -> tuple[Dataset, Dataset]:
    """Training and test set of so many crops, size x size, as many of each class to within one.

    The same `seed` gives the same crops. `root` is not needed. The masks are outlines drawn by
    hand, to within a few pixels of the photograph. ValueError for fewer images than classes or a
    size below 8; ImportError, with what to install, without scikit-image or scikit-learn.
    """
    if min(train, test) < len(CLASSES) or size < 8:
        raise ValueError(f"photographs needs at least {len(CLASSES)} images in each set, of at "
                         f"least 8 x 8 pixels; not {train} and {test} of {size} x {size}")
    sources = {name: _read(photograph) for name, photograph in PHOTOGRAPHS.items()}
    images, labels, masks = _crops(sources, train, size, 2 * seed)
    mean, std = channel_mean_std(images)
    first = Dataset(images, labels, CLASSES, mean, std, masks)
    images, labels, masks = _crops(sources, test, size, 2 * seed + 1)
    return first, Dataset(images, labels, CLASSES, mean, std, masks)


def _read(photograph):
    """A photograph and its mask, both in [0, 255], as one tensor (4, H, W)."""
    try:
        import skimage.data
        from skimage.draw import polygon2mask
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError("the photographs come with scikit-image and scikit-learn: "
                          "pip install 'sagelib[book]'") from error
    if photograph.package == "skimage":
        image = getattr(skimage.data, photograph.name)()  # (H, W, 3)
    else:
        image = load_sample_image(photograph.name)
    outline = [(y, x) for x, y in photograph.outline]
    mask = 255.0 * torch.from_numpy(polygon2mask(image.shape[:2], outline))  # (H, W)
    return torch.cat([torch.tensor(image).permute(2, 0, 1).float(), mask[None]])


def _crops(sources, n, size, seed):
    """n crops (n, 3, size, size), their labels, and masks (n, 1, size, size)."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n)[torch.randperm(n, generator=g)] % len(CLASSES)
    squares = [_with_object(sources, CLASSES[k], g) if k < len(PHOTOGRAPHS)
               else _without_object(sources, g) for k in labels.tolist()]
    crops = torch.cat([F.interpolate(square[None], (size, size), mode="bilinear", antialias=True)
                       for square in squares])  # (n, 4, size, size)
    flipped = torch.rand(n, 1, 1, 1, generator=g) < 0.5
    crops = torch.where(flipped, crops.flip(3), crops)
    return crops[:, :3].clamp(0, 255).round().to(torch.uint8), labels, crops[:, 3:] > 127


def _with_object(sources, name, g):
    """A random square of a photograph that shows the core of its object: (4, side, side)."""
    source, photograph = sources[name], PHOTOGRAPHS[name]
    side = _integer(*photograph.sides, g)
    left, top, right, bottom = photograph.core
    y, x = (_integer(max(0, last - side), min(first, whole - side), g) for first, last, whole in (
        (top, bottom, source.shape[1]), (left, right, source.shape[2])))
    return source[:, y:y + side, x:x + side]


def _without_object(sources, g):
    """A random square of any of the photographs with hardly any of its object: (4, side, side)."""
    source = sources[tuple(sources)[_integer(0, len(sources) - 1, g)]]
    while True:
        side = _integer(48, 200, g)
        y, x = (_integer(0, whole - side, g) for whole in source.shape[1:])
        square = source[:, y:y + side, x:x + side]
        if square[3].mean() < 2:  # of 255
            return square


def _integer(low, high, g):
    return int(torch.randint(low, high + 1, (), generator=g))
