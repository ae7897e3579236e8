"""PreActResNet18, from "Identity Mappings in Deep Residual Networks", ECCV 2016.

K. He, X. Zhang, S. Ren, J. Sun, https://arxiv.org/abs/1603.05027. Layer for layer the network of
the SAGE authors' code: no BatchNorm or ReLU before the pooling, a bare 1x1 convolution of the
activated input as shortcut; 11,171,146 parameters for 10 classes.
"""
from __future__ import annotations

from collections.abc import Sequence
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
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        h = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(h))))
        return out + (x if self.shortcut is None else self.shortcut(h))


class PreActResNet(nn.Module):
    """Images (B, 3, H, W), at least 8 x 8 -> logits (B, classes); `stages`: 4 groups of blocks."""

    def __init__(self, blocks: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.layer1 = _stage(width, width, blocks[0], 1)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], 2)
        self.linear = nn.Linear(8 * width, classes)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def _stage(channels, width, blocks, stride):
    first = Block(channels, width, stride)
    return nn.Sequential(first, *[Block(width, width, 1) for _ in range(blocks - 1)])


def build(classes: int, width: int = 64) -> PreActResNet:
    """The paper's network; `width`, 64 in the paper, is the channels of the first stage."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and 1 channel, not {classes} and "
                         f"{width}")
    return PreActResNet((2, 2, 2, 2), classes, width)
