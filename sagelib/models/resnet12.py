"""ResNet-12, the network of few-shot work: K. Lee, S. Maji, A. Ravichandran, S. Soatto,
"Meta-Learning with Differentiable Convex Optimization", CVPR 2019.

https://arxiv.org/abs/1904.03758. Four blocks of three 3x3 convolutions, 64, 160, 320 and 640
channels wide. Differs from their code: the mean over what is left of the picture (they keep all
places of it), and neither dropout after the first two blocks nor DropBlock after the last two.
SAGE's Table 2 says "ResNet12" and no more, and its authors' code has none.
"""
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Three times convolution and BatchNorm, a shortcut by 1x1 convolution, halved:
    (B, C, H, W) -> (B, width, H/2, W/2)."""

    def __init__(self, channels, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, 1, 1,
                                         bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False),
                                      nn.BatchNorm2d(width))

    def forward(self, x):
        out = F.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        out = F.leaky_relu(self.bn2(self.conv2(out)), 0.1)
        out = self.bn3(self.conv3(out)) + self.shortcut(x)
        return F.max_pool2d(F.leaky_relu(out, 0.1), 2)


class ResNet12(nn.Module):
    """Images (B, 3, H, W), at least 16 x 16 -> logits (B, classes). `stages` are its four
    blocks."""

    def __init__(self, classes, widths):
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            Block(before, width) for before, width in zip((3, *widths), widths, strict=False))
        self.linear = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0.1, "fan_out", "leaky_relu")

    @property
    def stages(self):
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def build(classes, width=64):
    """The network for `classes` classes; `width` channels in the first block (64 in full: 12.4
    million weights, without the last layer), the others in proportion."""
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and 1 channel, not {classes} and "
                         f"{width}")
    return ResNet12(classes, (width, width * 5 // 2, width * 5, width * 10))
