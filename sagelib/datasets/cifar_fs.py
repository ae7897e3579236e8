"""CIFAR-FS, few-shot: the 100 classes of CIFAR-100 as 64 to train on, 16 to choose by and 20 to be
tried on.

L. Bertinetto, J. F. Henriques, P. H. S. Torr, A. Vedaldi, "Meta-learning with Differentiable
Closed-form Solvers", ICLR 2019, https://arxiv.org/abs/1805.08136: the split is theirs. 600 images a
class, 32 x 32.
"""
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


def load(root):
    """Training, validation and test classes, from the CIFAR-100 that is at `root` or is downloaded
    there."""
    halves = cifar100.load(root)
    names = halves[0].classes
    images, labels = (torch.cat([getattr(half, part)
                                 for half in halves])
                      for part in ("images", "labels"))
    train = [name for name in names if name not in {*VAL, *TEST}]
    return FewShot.of(by_class(images, labels, names, chosen) for chosen in (train, VAL, TEST))
