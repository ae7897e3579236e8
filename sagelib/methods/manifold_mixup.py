"""Manifold Mixup: V. Verma, A. Lamb, C. Beckham, A. Najafi, I. Mitliagkas, D. Lopez-Paz, Y. Bengio, "Manifold Mixup:
Better Representations by Interpolating Hidden States", ICML 2019. https://arxiv.org/abs/1806.05236

As in the SAGE paper's comparison: alpha 2, one lambda, one pairing and one place for each batch: the input, or what
the first or the second stage of the network gives. The difference from the authors' code is where it stands: theirs
is written into each network's forward, here hooks mix what any network with `.stages` passes on.
"""
from dataclasses import dataclass

import torch

from . import mixup
from ._method import Method, as_column, blend_labels, check_pairs, number, whole


def mix(x, y, pair, lam):
    """Mixup of the images, what the method does when the place is the input; arguments as in `mixup.mix`."""
    return mixup.mix(x, y, pair, lam)


def forward(net, x, pair, lam):
    """Logits of net(x) with Mixup on the way: of the input by lam[0], after stage k by lam[k].

    x (B, C, H, W), pair (B,) integers; lam (1 + stages that are mixed,), or (1 + stages, B) with a weight for each
    image; a weight of 1 leaves a place alone.
    `net.stages` are its stages in order. The hooks are removed whatever happens. A network from torch.compile is run
    uncompiled.
    """
    net = getattr(net, "_orig_mod", net)  # a compiled network does not see hooks that come and go
    stages = getattr(net, "stages", ())
    if len(stages) < len(lam) - 1:
        raise ValueError(f"Manifold Mixup after stage {len(lam) - 1} needs a network with as many .stages; "
                         f"this one has {len(stages)}")
    hooks = [stage.register_forward_hook(lambda _, __, out, weight=weight: blend(out, pair, weight))
             for stage, weight in zip(stages, lam[1:], strict=False)]
    try:
        return net(blend(x, pair, lam[0]))
    finally:
        for hook in hooks:
            hook.remove()


def blend(z, pair, weight):
    """Mixup of anything with the batch first: weight * z + (1 - weight) * z[pair], weight 0-d or (B,)."""
    weight = weight.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
    return weight * z + (1 - weight) * z[pair]


@dataclass(kw_only=True)
class ManifoldMixup(Method):
    """Mixup at the input or after one of the first `stages` stages, each as likely; lambda from Beta(alpha, alpha).

    per_image: a lambda for each image; the place is the batch's in any case.
    """

    NEEDS, LABEL = "a hook", "the weight lambda"

    alpha: float = number(2.0, 0, 100)
    stages: int = whole(2, 0, 100)
    per_image: bool = False

    def mix(self, x, y, net=None):
        return mix(x, y, *self._draw(x))

    def backward(self, net, x, y, scale=lambda loss: loss):
        pair, lam = self._draw(x)
        place = self.draw_permutation(1 + self.stages, x.device)[0]
        check_pairs(x, y, pair)
        here = torch.arange(1 + self.stages, device=x.device) == place
        everywhere = torch.where(here.reshape(-1, *[1] * lam.ndim), lam, 1)
        loss = self.criterion(forward(net, x, pair, everywhere), blend_labels(y, pair, as_column(lam, x).flatten()))
        scale(loss).backward()
        return loss.detach()

    def _draw(self, x):
        return self.draw_permutation(len(x), x.device), self.draw_beta(self.alpha, x.device, *self._many(x))


build = ManifoldMixup
