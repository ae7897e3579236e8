"""ResNet-12, from "Meta-Learning with Differentiable Convex Optimization", CVPR 2019.

K. Lee, S. Maji, A. Ravichandran, S. Soatto, https://arxiv.org/abs/1904.03758. The usual network of
few-shot learning: four blocks of three 3x3 convolutions, 64, 160, 320 and 640 channels wide.
Differs from their code: global average pooling (they keep all places of the last feature map), and
neither dropout after the first two blocks nor DropBlock after the last two. SAGE's Table 2 says
"ResNet12" and no more, and its authors' code has none.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class Block(nn.Module):
    """Three convolutions with BatchNorm, a 1x1 convolution as shortcut, then max pooling.

    (B, C, H, W) -> (B, width, H/2, W/2).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False),
                                      nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out = F.leaky_relu(self.bn1(self.conv1(x)), 0.1)
        out = F.leaky_relu(self.bn2(self.conv2(out)), 0.1)
        out = self.bn3(self.conv3(out)) + self.shortcut(x)
        return F.max_pool2d(F.leaky_relu(out, 0.1), 2)


class ResNet12(nn.Module):
    """Images (B, 3, H, W), at least 16 x 16 -> logits (B, classes); `stages`: its 4 blocks."""

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.layer1 = Block(3, widths[0])
        self.layer2 = Block(widths[0], widths[1])
        self.layer3 = Block(widths[1], widths[2])
        self.layer4 = Block(widths[2], widths[3])
        self.linear = nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0.1, "fan_out", "leaky_relu")

    @property
    def stages(self) -> tuple[Block, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        for stage in self.stages:
            x = stage(x)
        return self.linear(x.mean((2, 3)))


def build(classes: int, width: int = 64) -> ResNet12:
    """The network with `width` channels in the first block, and the others in proportion.

    With 64, the full width, it has 12.4 million parameters without the last layer.
    """
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and 1 channel, not {classes} and "
                         f"{width}")
    return ResNet12(classes, (width, width * 5 // 2, width * 5, width * 10))
