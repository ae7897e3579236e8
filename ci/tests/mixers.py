"""The functions that build a Mixer, and the networks that several tests of it look through."""
import pytest
import torch
from torch import nn

from sagelib import (
    SAGE,
    CoMixup,
    CutMix,
    ManifoldMixup,
    Mixup,
    PuzzleMix,
    RMix,
    SaliencyMix,
    TransMix,
)
from sagelib.methods import (
    comixup,
    cutmix,
    manifold_mixup,
    mixup,
    puzzlemix,
    rmix,
    sage,
    saliencymix,
    transmix,
)

METHOD = {SAGE: sage.Sage, Mixup: mixup.Mixup, CutMix: cutmix.CutMix,
          ManifoldMixup: manifold_mixup.ManifoldMixup, SaliencyMix: saliencymix.SaliencyMix,
          PuzzleMix: puzzlemix.PuzzleMix, CoMixup: comixup.CoMixup, RMix: rmix.RMix,
          TransMix: transmix.TransMix}
ALL = tuple(METHOD)
GUIDED = (SAGE, PuzzleMix, CoMixup, RMix)  # they compute saliency with the network
# options with which every call mixes the images themselves
ALWAYS = {ManifoldMixup: {"stages": 0}, SaliencyMix: {"prob": 1.0}}


def kinds(*chosen):
    """A test for each of these functions, as `kind`."""
    return pytest.mark.parametrize("kind", chosen, ids=lambda kind: kind.__name__)


every, guided = kinds(*ALL), kinds(*GUIDED)


class Around(nn.Module):
    """A network with something before it, and something after it."""

    def __init__(self, net, first=None, last=None):
        super().__init__()
        self.net, self.first, self.last = net, first or nn.Identity(), last or (lambda out: out)

    def forward(self, z):
        return self.last(self.net(self.first(z)))


class Segments(nn.Module):
    """The tiny network, whose convolution and BatchNorm are recomputed in the backward pass."""

    def __init__(self, net, reentrant):
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x):
        x = torch.utils.checkpoint.checkpoint(self.net[:3], x, use_reentrant=self.reentrant)
        return self.net[3:](x)


class Temperature(nn.Module):
    """A cross-entropy that learns: its parameter scales the logits."""

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(2.0))

    def forward(self, z, y):
        return nn.functional.cross_entropy(z * self.t, y)


def own_maps(x):
    """Saliency maps (B, H, W) that need no network: the mean absolute value of the channels."""
    return x.abs().mean(1)


def draw_one_batch(mix):
    """The share of the first image that this Mixer draws for three black images."""
    mix(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    return mix.last.share[0].item()
