"""CIFAR-10 and CIFAR-100: from unpacked folders of PNGs, or downloaded by torchvision.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""
from pathlib import Path

import torch

from .dataset import Dataset
from .image_folder import class_names, read

SIZES = {"train": 50_000, "test": 10_000}


def load_cifar(root, name, classes, mean, std):
    """Train and test from ROOT/NAME/train/CLASS/*.png (or ROOT/train/…) if there, else through
    torchvision at ROOT."""
    if root is None:
        raise ValueError(f"{name} needs root: the folder it is in, or is to be downloaded to")
    tree = next((p for p in (Path(root) / name, Path(root)) if (p / "train").is_dir()), None)
    train, test = _from_tree(tree, name, classes) if tree else _from_torchvision(root, name)
    for split, (_, labels) in (("train", train), ("test", test)):
        if len(labels) != SIZES[split]:
            raise ValueError(f"{tree or root}: {name} has {SIZES[split]} {split} images, here are "
                             f"{len(labels)}; unpack it again, or use the data set 'folder' for a "
                             "part of it")
    names = class_names(tree / "train") if tree else _torchvision(root, name, True).classes
    scale = [tuple(v / 255 for v in c) for c in (mean, std)]
    return Dataset(*train, tuple(names), *scale), Dataset(*test, tuple(names), *scale)


def _from_tree(tree, name, classes):
    names = class_names(tree / "train")
    if len(names) != classes:
        raise ValueError(f"{tree / 'train'} has {len(names)} classes, {name} has {classes}; is it "
                         "another data set?")
    return tuple(read(tree / split, names, (32, 32)) for split in ("train", "test"))


def _from_torchvision(root, name):
    sets = [_torchvision(root, name, train) for train in (True, False)]
    return [(torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets))
            for s in sets]


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
