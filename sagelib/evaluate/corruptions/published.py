"""The published corruptions CIFAR-10-C and CIFAR-100-C, checked against their test set."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Dataset

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

    Read = Callable[[str, int], tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]]


def published(root: str | Path, test: Dataset) -> Read:
    """A function (name, severity) -> images uint8 (N, 3, H, W), labels (N,): published corruptions.

    root: the folder of CIFAR-10-C or CIFAR-100-C, unpacked: NAME.npy and labels.npy, one severity
    after the other. test: the `Dataset` they were made from, all of it, in any order. ValueError if
    they were made from another one: compared are the number of classes, the number of images of
    each class, and the images and labels of jpeg_compression at severity 1.
    """
    labels = _labels(Path(root) / "labels.npy", test)

    def read(name, severity):
        check_severity(severity)
        file = Path(root) / f"{name}.npy"
        images = _array(file)
        shape = (5 * len(test), *test.images.shape[2:], 3)
        if images.dtype != np.uint8 or images.shape != shape:
            raise ValueError(f"{file} has {images.dtype} {images.shape}; of this test set it has "
                             f"uint8 {shape}, {len(test)} images for each severity")
        part = images[(severity - 1) * len(test):severity * len(test)].copy()  # (N, H, W, 3)
        return torch.from_numpy(part).permute(0, 3, 1, 2), labels[(severity - 1) % len(labels)]

    _check_same_images(root, *read("jpeg_compression", 1), test)
    return read


def _labels(file, test):
    """int64 (1 or 5, N): the labels of all severities, or of each."""
    labels, classes = _array(file), len(test.classes)
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(test),), (5 * len(test),)):
        raise ValueError(f"{file} has {labels.dtype} {labels.shape}; of this test set it has "
                         f"{len(test)} class indices, or 5 times as many")
    if labels.max() + 1 != classes or labels.min() < 0:
        raise ValueError(f"{file} has class indices from {labels.min()} to {labels.max()}, this "
                         f"test set has {classes} classes; is it the folder of another data set?")
    labels = torch.from_numpy(labels.astype("int64")).reshape(-1, len(test))
    counts = test.labels.cpu().bincount(minlength=classes)
    if any(not torch.equal(part.bincount(minlength=classes), counts) for part in labels):
        raise ValueError(f"{file} has another number of images of some class than this test set; "
                         "is it the folder of another data set?")
    return labels


def _array(file):
    if not file.exists():
        raise FileNotFoundError(f"there is no {file}; root is the folder of CIFAR-10-C or "
                                "CIFAR-100-C, unpacked")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} cannot be read ({error}): download it again") from error


def _check_same_images(root, images, labels, test, some=100, nearer=0.8):
    """Refuses JPEG images (N, 3, H, W) that are not of a test set, or that it labels otherwise.

    An image counts as found if the nearest one in the test set is less than `nearer` times as far
    as the second nearest. Measured with Pillow's JPEG at quality 80: all images of CIFAR-10 and
    CIFAR-100 are found in their own test set, 0 to 2 % in that of the other or among the images of
    the training set, and 59 to 69 % with red and blue exchanged.
    """
    picked = torch.linspace(0, len(images) - 1, min(some, len(images))).long()
    x = images[picked].to(test.images.device).flatten(1).float()
    parts = test.images.split(2000)
    away = torch.cat([torch.cdist(x, part.flatten(1).float()) for part in parts], 1)
    nearest = away.topk(2, largest=False)
    first, second = nearest.values.T
    found = (first < nearer * second).cpu()
    if found.float().mean() < 0.9:
        raise ValueError(f"{root} was made from other images than this test set: of {len(picked)} "
                         f"images of jpeg_compression, severity 1, it has {int(found.sum())}")
    same = found & (test.labels[nearest.indices[:, 0]].cpu() == labels[picked])
    if same.float().mean() < 0.9:
        raise ValueError(f"{root} has other labels than this test set: of {len(picked)} images of "
                         f"jpeg_compression, severity 1, {int(same.sum())} have the same in both")


def check_severity(severity: int) -> None:
    """ValueError for a severity that is not 1 to 5."""
    if not isinstance(severity, int) or severity not in range(1, 6):
        raise ValueError(f"severity is {severity!r}; it is 1, 2, 3, 4 or 5")
