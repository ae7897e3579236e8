"""CIFAR-10 and CIFAR-100: from unpacked folders of PNGs, or downloaded by torchvision.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .array_cache import cached
from .dataset import Dataset
from .image_folder import class_names, read

SIZES = {"train": 50_000, "test": 10_000}


def load_cifar(root: str | Path, name: str, classes: int, mean: Sequence[float],
               std: Sequence[float]) -> tuple[Dataset, Dataset]:
    """Training and test set, from ROOT/NAME/train/CLASS/*.png or ROOT/train/CLASS/*.png.

    The decoded images are kept beside `train`, in the hidden file `.sagelib-NAME.pt`, if it can be
    written, and are read from it for as long as the folders do not change. Without such folders
    torchvision reads the data set at ROOT, or downloads it there. `mean` and `std` are those of
    each channel in [0, 255].
    """
    if root is None:
        raise ValueError(f"{name} needs root: the folder it is in, or is to be downloaded to")
    folders = (Path(root) / name, Path(root))
    tree = next((folder for folder in folders if (folder / "train").is_dir()), None)
    if tree is None:
        names, train, test = _from_torchvision(root, name)
    else:
        names, train, test = _from_tree(tree, name, classes)
    for split, (_, labels) in (("train", train), ("test", test)):
        if len(labels) != SIZES[split]:
            raise ValueError(f"{tree or root}: {name} has {SIZES[split]} {split} images, here are "
                             f"{len(labels)}; unpack it again, or use the data set 'folder' for a "
                             "part of it")
    mean, std = (tuple(v / 255 for v in values) for values in (mean, std))
    return Dataset(*train, names, mean, std), Dataset(*test, names, mean, std)


def _from_tree(tree, name, classes):
    """The class names, and (images, labels) of the training and of the test set."""
    folders = [tree / "train", tree / "test"]
    names = class_names(folders[0])
    if len(names) != classes:
        raise ValueError(f"{folders[0]} has {len(names)} classes, {name} has {classes}; is it "
                         "another data set?")
    train, test = cached(tree / f".sagelib-{name}.pt", folders,
                         lambda: [read(folder, names, (32, 32)) for folder in folders])
    return names, train, test


def _from_torchvision(root, name):
    train, test = _torchvision(root, name, True), _torchvision(root, name, False)
    parts = [(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),  # (N, 3, 32, 32)
              torch.tensor(part.targets)) for part in (train, test)]
    return tuple(train.classes), *parts


def _torchvision(root, name, train):
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"downloading {name} needs torchvision: pip install 'sagelib[book]' "
                          f"({error})") from error
    try:
        return getattr(datasets, name.upper())(root, train=train, download=True)
    except Exception as error:  # the network, the disk or a damaged archive
        raise RuntimeError(f"{name} is neither unpacked under {root} ({name}/train/CLASS/*.png) "
                           f"nor could torchvision get it there: {error}") from error
