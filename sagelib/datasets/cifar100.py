"""CIFAR-100: 50,000 training and 10,000 test images of 100 classes, 32 x 32 (Krizhevsky, 2009)."""
from pathlib import Path

from ..data.cifar import load_cifar
from ..data.dataset import Dataset

IMAGES = dict(train=50_000, held_out=10_000, height=32, width=32)


def load(root: str | Path) -> tuple[Dataset, Dataset]:
    """Train and test set, normalised by the authors' constants (mean and std in [0, 255])."""
    return load_cifar(root, "cifar100", 100, (129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
