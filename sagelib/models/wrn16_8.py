"""WRN16-8: S. Zagoruyko, N. Komodakis, "Wide Residual Networks", BMVC 2016.
https://arxiv.org/abs/1605.07146

Layer for layer the network of the SAGE authors' code, which is not the textbook's: every
convolution has a bias, a block halves the image in its second convolution, the shortcut is a 1x1
convolution of the raw input, the last BatchNorm has momentum 0.9, and nothing is dropped out;
10,965,866 parameters for 10 classes.
"""
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, plus the input: (B, C, H, W) -> (B, width, H/stride,
    W/stride)."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Sequential(nn.Conv2d(channels, width, 1, stride))

    def forward(self, x):
        out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return out + (x if self.shortcut is None else self.shortcut(x))


class WideResNet(nn.Module):
    """Images (B, 3, H, W), at least 4 x 4 -> logits (B, classes). `stages` are its three groups of
    blocks."""

    def __init__(self, classes, widen, blocks=2):
        super().__init__()
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(*[
            Block(widths[k] if n == 0 else widths[k + 1], widths[k + 1], stride if n == 0 else 1)
            for n in range(blocks)
        ])
                                                 for k, stride in enumerate((1, 2, 2)))
        self.bn1 = nn.BatchNorm2d(widths[3], momentum=0.9)
        self.linear = nn.Linear(widths[3], classes)

    @property
    def stages(self):
        return self.layer1, self.layer2, self.layer3

    def forward(self, x):
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        return self.linear(F.relu(self.bn1(x)).mean((2, 3)))


def build(classes, width=8):
    """The paper's network for `classes` classes; `width` is the widening factor, 8 in the paper."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and a widening of 1, not {classes} "
                         f"and {width}")
    return WideResNet(classes, width)
