"""Manifold Mixup: V. Verma, A. Lamb, C. Beckham, A. Najafi, I. Mitliagkas, D. Lopez-Paz, Y. Bengio,
"Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019.
https://arxiv.org/abs/1806.05236

As in the SAGE paper's comparison: alpha 2, one lambda, one pairing and one place for each batch:
the input, or what the first or the second stage of the network gives. The difference from the
authors' code is where it stands: theirs is written into each network's forward, here hooks mix what
any network with `.stages` passes on.
"""
import warnings
from dataclasses import dataclass

import torch

from ..method import Method, Mixed, as_column, blend_labels, check_pairs, number, whole
from ..unwrap import eager, uncompiled
from . import mixup


def mix(x, y, pair, lam):
    """Mixup of the images, what the method does when the place is the input; arguments as in
    `mixup.mix`."""
    return mixup.mix(x, y, pair, lam)


def forward(net, x, pair, lam):
    """Logits of net(x) with Mixup on the way: of the input by lam[0], after stage k by lam[k].

    x (B, C, H, W), pair (B,) integers; lam (1 + stages that are mixed,), or (1 + stages, B) with a
    weight for each image; a weight of 1 leaves a place alone. `net.stages` are its stages in order.
    The hooks are removed whatever happens. A network from torch.compile is run uncompiled.
    """
    net = eager(net)  # a compiled network does not see hooks that come and go
    stages = getattr(net, "stages", ())
    if len(stages) < len(lam) - 1:
        raise ValueError(f"Manifold Mixup after stage {len(lam) - 1} needs a network with as many "
                         f".stages; this one has {len(stages)}")
    hooks = [stage.register_forward_hook(lambda _, __, out, weight=weight: blend(out, pair, weight))
             for stage, weight in zip(stages, lam[1:], strict=False)]
    try:
        return net(blend(x, pair, lam[0]))
    finally:
        for hook in hooks:
            hook.remove()


def blend(z, pair, weight):
    """Mixup of anything with the batch first: weight * z + (1 - weight) * z[pair], weight 0-d or
    (B,)."""
    weight = weight.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
    return weight * z + (1 - weight) * z[pair]


@dataclass(kw_only=True)
class ManifoldMixup(Method):
    """Mixup at the input or after one of the first `stages` stages, each as likely; lambda from
    Beta(alpha, alpha).

    per_image: a lambda for each image; the place is the batch's in any case. `loss` registers its
    hooks for one forward pass. A network that is attached has hooks that stay: `mix` chooses the
    place, and the network's next forward pass in training mode mixes there.
    """

    NEEDS, LABEL = "a hook", "the weight lambda"
    needs_network = True
    net, attached, hooks = None, (), ()  # the attached network, its stages, and the hooks in them
    pending = None  # stage, batch permutation and weight of the next forward pass

    alpha: float = number(2.0, 0, 100)
    stages: int = whole(2, 0, 100)
    per_image: bool = False

    def mix(self, x, y, net=None):
        if self.net is None:
            return mix(x, y, *self._draw(x))
        if self.stages > len(self.attached):
            raise ValueError(f"stages is {self.stages}, and bind was told {len(self.attached)}: "
                             "bind again")
        if self.pending is not None:
            warnings.warn(
                "Manifold Mixup: the last batch was to be mixed inside the network, "
                "which has not been run since, or had been compiled and run before bind",
                stacklevel=3)
            self.pending = None
        mixed = mix(x, y, *self._draw(x))
        if place := self.draw_choice(range(1 + self.stages)):
            self.pending = self.attached[place - 1], mixed.pair, mixed.share
            mixed = Mixed(x, mixed.y, share=mixed.share, pair=mixed.pair)
        return mixed

    def loss(self, net, x, y, scaler=None):
        if self.net is not None:
            loss = super().loss(net, x, y, scaler)
            if self.pending is not None:
                self.pending = None
                raise RuntimeError("Manifold Mixup mixes inside a network in training mode, and "
                                   "this one was not, or had been compiled and run before bind: "
                                   "call net.train()")
            return loss
        pair, lam = self._draw(x)
        place = self.draw_permutation(1 + self.stages, x.device)[0]
        check_pairs(x, y, pair)
        here = torch.arange(1 + self.stages, device=x.device) == place
        everywhere = torch.where(here.reshape(-1, *[1] * lam.ndim), lam, 1)
        share = as_column(lam, x).flatten()
        self.last = Mixed(x, blend_labels(y, pair, share), share=share, pair=pair)
        return self.loss_of(forward(net, x, pair, everywhere), self.last.y)

    def attach(self, net, stages=None):
        """Register hooks in a network. stages: names of modules ("layer1", "layer2") or modules, in
        order; default net.stages. ValueError where there are too few, or one is not the
        network's."""
        if isinstance(eager(net), torch.nn.DataParallel):
            raise ValueError("Manifold Mixup does not reach the copies that DataParallel makes: "
                             "use DistributedDataParallel")
        inner = uncompiled(net)
        stages = [stages] if isinstance(stages, (str, torch.nn.Module)) else stages
        found = [
            inner.get_submodule(s) if isinstance(s, str) else s
            for s in stages or getattr(inner, "stages", ())
        ]
        if not {id(s) for s in found} <= {id(m) for m in inner.modules()}:
            raise ValueError("a stage must be a module of the network, or its name")
        if len(found) < self.stages:
            raise ValueError(f"Manifold Mixup after {self.stages} stages needs as many; this "
                             f"network has {len(found)}: bind(model, stages=[...]) takes names, "
                             f"such as {[name for name, _ in inner.named_children()]}")
        self.detach()
        self.net, self.attached = inner, found
        self._register()

    def detach(self):
        for hook in self.hooks:
            hook.remove()
        self.net, self.attached, self.hooks, self.pending = None, (), (), None

    def __setstate__(self, state):  # of a copy: hooks of its own, in its own network
        self.__dict__.update(state)
        if self.net is not None:
            self._register()

    def _register(self):
        net = self.net

        @torch.compiler.disable
        # a closure: a copy of the network takes it along as it is, and is never mixed
        def mix_here(stage, _, out):
            if self.pending is None or self.pending[0] is not stage or not net.training:
                return out
            (_, pair, share), self.pending = self.pending, None
            if isinstance(out, tuple):
                return blend(out[0], pair, share), *out[1:]
            return blend(out, pair, share)

        self.hooks = [stage.register_forward_hook(mix_here) for stage in self.attached]

    def _draw(self, x):
        return self.draw_permutation(len(x),
                                     x.device), self.draw_beta(self.alpha, x.device, *self._many(x))


build = ManifoldMixup
