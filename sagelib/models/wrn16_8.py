"""WRN16-8, from "Wide Residual Networks", BMVC 2016.

S. Zagoruyko, N. Komodakis, https://arxiv.org/abs/1605.07146. Layer for layer the network of the
SAGE authors' code, which is not the textbook's: every convolution has a bias, a block halves the
image in its second convolution, the shortcut is a 1x1 convolution of the raw input, the last
BatchNorm has momentum 0.9, and there is no dropout; 10,965,866 parameters for 10 classes.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, plus the input.

    (B, C, H, W) -> (B, width, H/stride, W/stride).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        self.shortcut = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return out + (x if self.shortcut is None else self.shortcut(x))


class WideResNet(nn.Module):
    """Images (B, 3, H, W), at least 4 x 4 -> logits (B, classes); `stages`: 3 groups of blocks."""

    def __init__(self, classes: int, widen: int, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.layer1 = _stage(16, 16 * widen, blocks, 1)
        self.layer2 = _stage(16 * widen, 32 * widen, blocks, 2)
        self.layer3 = _stage(32 * widen, 64 * widen, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen, momentum=0.9)
        self.linear = nn.Linear(64 * widen, classes)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        return self.linear(F.relu(self.bn1(x)).mean((2, 3)))


def _stage(channels, width, blocks, stride):
    first = Block(channels, width, stride)
    return nn.Sequential(first, *[Block(width, width, 1) for _ in range(blocks - 1)])


def build(classes: int, width: int = 8) -> WideResNet:
    """The paper's network; `width` is the widening factor, 8 in the paper."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and a widening of 1, not {classes} "
                         f"and {width}")
    return WideResNet(classes, width)
