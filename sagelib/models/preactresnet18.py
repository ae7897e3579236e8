"""PreActResNet18: K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks",
ECCV 2016.

https://arxiv.org/abs/1603.05027. Layer for layer the network of the SAGE authors' code: no
BatchNorm or ReLU before the pooling, a bare 1x1 convolution of the activated input as shortcut;
11,171,146 parameters for 10 classes.
"""
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, plus the input: (B, C, H, W) -> (B, width, H/stride,
    W/stride)."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Sequential(
            nn.Conv2d(channels, width, 1, stride, bias=False))

    def forward(self, x):
        h = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(h))))
        return out + (x if self.shortcut is None else self.shortcut(h))


class PreActResNet(nn.Module):
    """Images (B, 3, H, W), at least 8 x 8 -> logits (B, classes). `stages` are its four groups of
    blocks."""

    def __init__(self, blocks, classes, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.layer1 = _stage(width, width, blocks[0], 1)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], 2)
        self.linear = nn.Linear(8 * width, classes)

    @property
    def stages(self):
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x):
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def _stage(channels, width, blocks, stride):
    return nn.Sequential(*[Block(channels if k == 0 else width, width, stride if k == 0 else 1)
                           for k in range(blocks)])


def build(classes, width=64):
    """The paper's network for `classes` classes; `width` (64 in the paper) is the channels of the
    first stage."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and 1 channel, not {classes} and "
                         f"{width}")
    return PreActResNet((2, 2, 2, 2), classes, width)
