import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book/_ext"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if find_spec("beartype") and find_spec("jaxtyping"):  # a bare GPU machine has neither
    import typed
    typed.install()
from networks import Tiny

from sagelib import datasets
from sagelib.catalog import load
from sagelib.data import cifar


@pytest.fixture(scope="session")
def shapes():
    """A small built-in train and test set."""
    return load(datasets, "shapes", train=40, test=30)


@pytest.fixture
def tiny():
    """A function that builds a network of three layers, with BatchNorm, for images of any size,
    always with the same weights."""
    def build(classes=10, norm=True, seed=0):
        torch.manual_seed(seed)
        return Tiny(nn.Conv2d(3, 6, 3, padding=1),
                    nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(),
                    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes))
    return build


@pytest.fixture
def images():
    """Six images, not square, and their class indices."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 14, 18, generator=g), torch.randint(10, (6,), generator=g)


@pytest.fixture
def vectors():
    """What the authors' code computed on given draws: name -> dict of tensors."""
    def read(name):
        with np.load(Path(__file__).parent / "vectors" / f"{name}.npz") as found:
            return {k: torch.from_numpy(found[k]) for k in found if found[k].dtype.kind in "fiu"}
    return read


@pytest.fixture
def image_folder(tmp_path):
    """A user's own folder: two classes, three training and two test images each, 12 x 16
    pixels."""
    g = np.random.default_rng(0)
    for split, n in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for k in range(n):
                image = g.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{k}.png")
    return tmp_path / "images"


@pytest.fixture
def cifar_tree(tmp_path, monkeypatch):
    """A function that makes CIFAR's folders, with one image of a class in each split: red is its
    class index, green 0 or, in the test set, 100. It returns their folder, and CIFAR's own sizes
    count no more."""
    def build(name, classes):
        for green, split in ((0, "train"), (100, "test")):
            for k, class_ in enumerate(classes):
                folder = tmp_path / name / split / class_
                folder.mkdir(parents=True)
                Image.new("RGB", (32, 32), (k, green, 0)).save(folder / "0000.png")
        monkeypatch.setattr(cifar, "SIZES", {"train": len(classes), "test": len(classes)})
        return tmp_path
    return build


@pytest.fixture
def plan(tmp_path):
    """A plan of four small runs, or another text, with its sizes, as a file."""
    from sweeps import PLAN, SIZES

    def make(text=PLAN, epochs=1):
        (tmp_path / "sizes.yml").write_text(SIZES % epochs)
        (tmp_path / "plan.yml").write_text(text)
        return tmp_path / "plan.yml"
    return make
