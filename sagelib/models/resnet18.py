"""ResNet-18 of torchvision, from "Deep Residual Learning for Image Recognition", CVPR 2016.

K. He, X. Zhang, S. Ren, J. Sun, https://arxiv.org/abs/1512.03385. Not a network of the paper: the
example of a user's own network. All it needs for the methods of this library is to return logits,
and for Manifold Mixup a property `.stages`.
"""
from torch import nn


def build(classes: int, width: int = 64) -> nn.Module:
    """torchvision's ResNet-18 with `.stages`; `width` channels in the first stage."""
    try:
        from torchvision.models import resnet
    except ImportError as error:
        raise ImportError("resnet18 is torchvision's: pip install torchvision") from error
    if classes < 2 or width < 1:
        raise ValueError(f"a network needs at least 2 classes and a width of 1, not {classes} and "
                         f"{width}")

    class Staged(resnet.ResNet):
        stages = property(lambda net: (net.layer1, net.layer2, net.layer3, net.layer4))

    net = Staged(resnet.BasicBlock, [2, 2, 2, 2], num_classes=classes)
    return _narrowed(net, width) if width != 64 else net


def _narrowed(net, width):
    """The same layers with width / 64 of the channels, for small machines."""
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d):
                inner = 3 if layer.in_channels == 3 else layer.in_channels * width // 64
                outer = layer.out_channels * width // 64
                kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
                narrow = nn.Conv2d(inner, outer, kernel, stride, padding, bias=False)
                setattr(parent, name, narrow)
            elif isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(layer.num_features * width // 64))
    net.fc = nn.Linear(net.fc.in_features * width // 64, net.fc.out_features)
    return net
