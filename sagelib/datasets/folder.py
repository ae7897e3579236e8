"""Any folder of pictures: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, all of one size.

PNG, JPEG, WebP, BMP and PPM; grey and palette pictures become RGB. Normalised by the training set's own mean and std.
"""
from pathlib import Path

import numpy as np
import torch

from ._dataset import Dataset, measured

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm"}


def load(root):
    """The training and the test set under `root`. ValueError names the file or folder that is wrong."""
    root = _directory(root)
    classes = class_names(root / "train")
    images, labels = read(root / "train", classes)
    mean, std = measured(images)
    test = read(root / "test", classes, size=images.shape[2:])
    return Dataset(images, labels, classes, mean, std), Dataset(*test, classes, mean, std)


def class_names(path):
    """The folders in `path`, by name: one a class."""
    found = tuple(p.name for p in sorted(_directory(path).iterdir()) if p.is_dir() and not p.name.startswith("."))
    if len(found) < 2:
        raise ValueError(f"{path} has {len(found)} class folder(s); a data set needs two or more, CLASS/*.png in each")
    return found


def read(path, classes, size=None):
    """All pictures of the classes under `path`: uint8 (N, 3, H, W) and their class numbers (N,)."""
    from PIL import Image

    extra = set(class_names(path)) - set(classes)
    if extra:
        raise ValueError(f"{path} has the class {sorted(extra)[0]!r} that the training set does not have")
    pictures, labels = [], []
    for number, name in enumerate(classes):
        files = sorted(p for p in _directory(Path(path) / name).rglob("*") if p.suffix.lower() in ENDINGS)
        if not files:
            raise ValueError(f"the class folder {Path(path) / name} has no picture ({', '.join(sorted(ENDINGS))})")
        for file in files:
            try:
                with Image.open(file) as opened:
                    picture = np.asarray(opened.convert("RGB"))
            except Exception as error:  # Pillow raises many kinds for a damaged file
                raise ValueError(f"{file} cannot be read as a picture ({error}); replace or remove it") from error
            size = tuple(size or picture.shape[:2])
            if picture.shape[:2] != size:
                raise ValueError(f"{file} is {picture.shape[0]} x {picture.shape[1]} pixels, the pictures before it "
                                 f"{size[0]} x {size[1]}: resize them to one size")
            pictures.append(picture)
            labels.append(number)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _directory(path):
    if path is None or not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}; give the root of a tree train/CLASS/*.png, "
                                "test/CLASS/*.png")
    return Path(path)
