"""Small networks of the tests that also give attention, as a transformer does."""
from torch import nn

from sagelib import catalog, methods


class Attentive(nn.Sequential):
    """Layers; as attention, the third one's channels, which are at least 0, mean over 3 x 3
    patches."""

    def forward(self, x, with_attention=False):
        for k, layer in enumerate(self):
            x = layer(x)
            if k == 2:
                seen = x
        if not with_attention:
            return x
        maps = seen.detach().relu().mean(1, keepdim=True)
        return x, nn.functional.adaptive_avg_pool2d(maps, 3)


class Tiny(Attentive):
    """Layers, the first two of which with a ReLU count as stages."""

    @property
    def stages(self):
        return self[2], self[3]


def network_for(method):
    """The catalogue's network that a method is tried with: a transformer if it asks for
    attention."""
    return "vit_tiny" if catalog.stated(methods, method, "ATTENTION") else "preactresnet18"
