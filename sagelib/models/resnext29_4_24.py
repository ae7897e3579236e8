"""ResNeXt29-4-24, from "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.

S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, https://arxiv.org/abs/1611.05431. Layer for layer the
network of the SAGE authors' code: three stages of three bottlenecks, 4 groups of base width 24;
4,845,002 parameters for 10 classes.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

GROUPS, EXPANSION = 4, 4


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 convolutions with BatchNorm, plus the input, then ReLU.

    (B, C, H, W) -> (B, EXPANSION * planes, H/stride, W/stride).
    """

    def __init__(self, channels: int, planes: int, base: int, stride: int) -> None:
        super().__init__()
        inner, outer = GROUPS * (planes * base // 64), EXPANSION * planes
        self.conv_reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=GROUPS, bias=False)
        self.bn = nn.BatchNorm2d(inner)
        self.conv_expand = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or channels != outer:
            self.downsample = nn.Sequential(nn.Conv2d(channels, outer, 1, stride, bias=False),
                                            nn.BatchNorm2d(outer))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out = F.relu(self.bn_reduce(self.conv_reduce(x)))
        out = F.relu(self.bn(self.conv_conv(out)))
        out = self.bn_expand(self.conv_expand(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNeXt(nn.Module):
    """Images (B, 3, H, W), at least 4 x 4 -> logits (B, classes); `stages`: 3 groups of blocks."""

    def __init__(self, classes: int, base: int, blocks: int = 3) -> None:
        super().__init__()
        self.conv_1_3x3 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(64)
        self.stage_1 = _stage(64, 64, base, blocks, 1)
        self.stage_2 = _stage(64 * EXPANSION, 128, base, blocks, 2)
        self.stage_3 = _stage(128 * EXPANSION, 256, base, blocks, 2)
        self.classifier = nn.Linear(256 * EXPANSION, classes)
        self.apply(_initialise)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.stage_1, self.stage_2, self.stage_3

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        x = F.relu(self.bn_1(self.conv_1_3x3(x)))
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean((2, 3)))


def _stage(channels, planes, base, blocks, stride):
    first = Bottleneck(channels, planes, base, stride)
    others = [Bottleneck(planes * EXPANSION, planes, base, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


def _initialise(module):
    if isinstance(module, nn.Conv2d):
        # sqrt(2 / outputs of a pixel), groups not counted, as the authors have it
        outputs = math.prod(module.kernel_size) * module.out_channels
        nn.init.normal_(module.weight, 0, math.sqrt(2 / outputs))
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


def build(classes: int, width: int = 24) -> ResNeXt:
    """The paper's network; `width` is the base width of a group, 24 in the paper."""
    if classes < 2 or width < 1:
        raise ValueError("a network needs at least 2 classes and a base width of 1, not "
                         f"{classes} and {width}")
    return ResNeXt(classes, width)
