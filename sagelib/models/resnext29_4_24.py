"""ResNeXt29-4-24: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, "Aggregated Residual
Transformations for Deep Neural Networks", CVPR 2017. https://arxiv.org/abs/1611.05431

Layer for layer the network of the SAGE authors' code: three stages of three bottlenecks, 4 groups
of base width 24; 4,845,002 parameters for 10 classes.
"""
import math

import torch.nn.functional as F
from torch import nn

GROUPS, EXPANSION = 4, 4


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 convolutions with BatchNorm, plus the input, then ReLU."""

    def __init__(self, channels, planes, base, stride):
        super().__init__()
        inner = GROUPS * (planes * base // 64)
        self.conv_reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=GROUPS, bias=False)
        self.bn = nn.BatchNorm2d(inner)
        self.conv_expand = nn.Conv2d(inner, planes * EXPANSION, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(planes * EXPANSION)
        same = stride == 1 and channels == planes * EXPANSION
        self.downsample = None if same else nn.Sequential(
            nn.Conv2d(channels, planes *
                      EXPANSION, 1, stride, bias=False), nn.BatchNorm2d(planes * EXPANSION))

    def forward(self, x):
        out = F.relu(self.bn_reduce(self.conv_reduce(x)))
        out = F.relu(self.bn(self.conv_conv(out)))
        out = self.bn_expand(self.conv_expand(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNeXt(nn.Module):
    """Images (B, 3, H, W), at least 4 x 4 -> logits (B, classes). `stages` are its three groups of
    bottlenecks."""

    def __init__(self, classes, base, blocks=3):
        super().__init__()
        self.conv_1_3x3 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(64)
        self.stage_1 = _stage(64, 64, base, blocks, 1)
        self.stage_2 = _stage(64 * EXPANSION, 128, base, blocks, 2)
        self.stage_3 = _stage(128 * EXPANSION, 256, base, blocks, 2)
        self.classifier = nn.Linear(256 * EXPANSION, classes)
        self.apply(_initialise)

    @property
    def stages(self):
        return self.stage_1, self.stage_2, self.stage_3

    def forward(self, x):
        x = F.relu(self.bn_1(self.conv_1_3x3(x)))
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean((2, 3)))


def _stage(channels, planes, base, blocks, stride):
    first = Bottleneck(channels, planes, base, stride)
    return nn.Sequential(
        first, *[Bottleneck(planes * EXPANSION, planes, base, 1) for _ in range(blocks - 1)])


def _initialise(module):
    # sqrt(2 / outputs of a pixel), groups not counted, as the authors have it
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0,
                        math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


def build(classes, width=24):
    """The paper's network for `classes` classes; `width` is the base width of a group, 24 in the
    paper."""
    if classes < 2 or width < 1:
        raise ValueError("a network needs at least 2 classes and a base width of 1, not "
                         f"{classes} and {width}")
    return ResNeXt(classes, width)
