"""Images in class folders, PATH/CLASS/*.png: their classes; all in memory, or one at a time."""
from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .image_files import count_endings, image_files, is_image, visible, warn_left_out
from .images import read_frame, read_image

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8
    from PIL import Image


def class_names(path: str | Path) -> tuple[str, ...]:
    """The names of the folders in `path`, sorted, without hidden ones: one a class."""
    found = tuple(p.name for p in visible(directory(path)) if p.is_dir())
    if len(found) < 2:
        raise ValueError(f"{path} has {len(found)} class folder(s); a data set needs two or more, "
                         "CLASS/*.png in each")
    same = {}
    for name in found:
        twin = same.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            raise ValueError(f"{path} has the class folders {twin!r} and {name!r}, which are one "
                             "folder where upper and lower case are the same; join or rename them")
    return found


def read(path: str | Path, classes: Sequence[str], size: Sequence[int] | None = None,
         background: str = "white") -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """All images of the classes under `path`, (N, 3, H, W), and their class indices (N,).

    size: the height and width that each must have; None: those of the first.
    """
    path = directory(path)
    files, labels = _listed(path, classes)
    images = np.stack(_read_all(path, files, size, background))  # (N, H, W, 3)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


class ImageFiles:
    """The images of the class folders under `path`, of any size, for a DataLoader.

    Item k is (view(image), class index), the image a Pillow image as `read_image` gives it.
    classes: those of the training set, for a test set; None: the folders' names. As in
    torchvision's ImageFolder, `classes`, `samples` and `targets` hold the names of the classes, the
    (file, class index) of each image, and the class indices.
    """

    def __init__(self, path: str | Path, view: Callable[[Image.Image], Any],
                 classes: Sequence[str] | None = None, background: str = "white") -> None:
        self.classes = class_names(path) if classes is None else tuple(classes)
        self.view, self.background = view, background
        files, self.targets = _listed(directory(path), self.classes)
        self.samples = list(zip(files, self.targets, strict=True))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, k: int) -> tuple[Any, int]:
        from PIL import Image

        file, label = self.samples[k]
        return self.view(Image.fromarray(read_image(file, self.background))), label


def _listed(path, classes):
    """The image files of the classes under `path`, and their class indices: two lists."""
    extra = set(class_names(path)) - set(classes)
    if extra:
        raise ValueError(f"{path} has the class {sorted(extra)[0]!r} that the training set does "
                         "not have")
    files, labels, others = [], [], []
    for k, name in enumerate(classes):
        images, rest = _files_of(path / name)
        files += images
        labels += [k] * len(images)
        others += rest
    warn_left_out(path, files, others)
    beside = [p for p in visible(path) if is_image(p)]
    if beside:
        warnings.warn(f"{path}: {len(beside)} image(s) are in no class folder and are left out, "
                      f"for example {beside[0].name}", stacklevel=3)
    return files, labels


def _files_of(folder):
    images, others = image_files(directory(folder))
    if not images:
        instead = f"; it has {count_endings(others)}" if others else ""
        raise ValueError(f"the class folder {folder} has no image that Pillow reads (.png, .jpg, "
                         f".tif and others){instead}")
    return images, others


def _read_all(path, files, size, background):
    """The images of all files, each uint8 (H, W, 3), of one size."""
    images, several = [], []
    for file in files:
        image, frames = read_frame(file, background)
        size = tuple(size or image.shape[:2])
        if image.shape[:2] != size:
            raise ValueError(f"{file} is {image.shape[0]} x {image.shape[1]} pixels, not {size[0]} "
                             f"x {size[1]} as the others: resize them to one size")
        images.append(image)
        if frames > 1:
            several.append(file)
    if several:
        warnings.warn(f"{path}: of {len(several)} file(s) with several frames only the first frame "
                      f"is read, for example {several[0].relative_to(path)}", stacklevel=3)
    return images


def directory(path: str | Path | None) -> Path:
    """The path of a folder that is there; else FileNotFoundError."""
    if path is None or not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}; give the root of a tree "
                                "train/CLASS/*.png, test/CLASS/*.png")
    return Path(path)
