"""CIFAR-FS, few-shot: the 100 classes of CIFAR-100 as 64 training, 16 validation, 20 test classes.

L. Bertinetto, J. F. Henriques, P. H. S. Torr, A. Vedaldi, "Meta-learning with Differentiable
Closed-form Solvers", ICLR 2019, https://arxiv.org/abs/1805.08136: the split is theirs. 600 images a
class, 32 x 32.
"""
from pathlib import Path

import torch

from ..data.few_shot import FewShot, by_class
from . import cifar100

# held out: the validation classes
IMAGES = dict(train=64 * 600, held_out=16 * 600, height=32, width=32)
VAL = """
    beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter
    sea shark television tractor
""".split()
TEST = """
    baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail
    sweet_pepper table telephone wardrobe whale woman worm
""".split()


def load(root: str | Path) -> FewShot:
    """Training, validation and test classes of the CIFAR-100 at `root`, or downloaded there."""
    first, second = cifar100.load(root)
    images = torch.cat([first.images, second.images])  # (60000, 3, 32, 32)
    labels = torch.cat([first.labels, second.labels])
    names = first.classes
    train = [name for name in names if name not in {*VAL, *TEST}]
    return FewShot.of(by_class(images, labels, names, chosen) for chosen in (train, VAL, TEST))
