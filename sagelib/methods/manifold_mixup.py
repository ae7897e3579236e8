"""Manifold Mixup: V. Verma, A. Lamb, C. Beckham, A. Najafi, I. Mitliagkas, D. Lopez-Paz, Y. Bengio,
"Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019.
https://arxiv.org/abs/1806.05236

As in the SAGE paper's comparison: alpha 2, one lambda, one batch permutation and one place for each
batch: the input, or the feature maps after the first or the second stage of the network. The
difference from the authors' code: theirs is written into each network's forward, here hooks mix the
feature maps of any network with `.stages`.
"""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..method import Method, Mixed, as_column, blend, check_pairs, number, whole
from ..unwrap import eager, uncompiled
from . import mixup

if TYPE_CHECKING:
    from jaxtyping import Float, Int

mix = mixup.mix  # where the place is the input


def forward(net: nn.Module, x: Float[Tensor, "b c h w"], pair: Int[Tensor, " b"],
            lam: Float[Tensor, " places"] | Float[Tensor, "places b"]) -> Any:
    """Logits of net(x) with Mixup on the way: of the input by lam[0], after stage k by lam[k].

    lam: one weight for the input and for each stage that is mixed, or one for each image there; a
    weight of 1 changes nothing. `net.stages` are its stages in order. The hooks are removed
    whatever happens. A network from torch.compile is run uncompiled.
    """
    net = eager(net)  # a compiled network does not see hooks that come and go
    stages = _stages_of(net)
    if len(stages) < len(lam) - 1:
        raise ValueError(f"Manifold Mixup after stage {len(lam) - 1} needs a network with as many "
                         f".stages; this one has {len(stages)}")
    hooks = []
    for stage, weight in zip(stages, lam[1:], strict=False):
        def mix_here(_, __, out, weight=weight):
            return blend(out, pair, weight)
        hooks.append(stage.register_forward_hook(mix_here))
    try:
        return net(blend(x, pair, lam[0]))
    finally:
        for hook in hooks:
            hook.remove()


def _stages_of(net):
    return getattr(net, "stages", ())


@dataclass(kw_only=True)
class ManifoldMixup(Method):
    """Mixup at the input or after one of the first `stages` stages, each as likely.

    lambda is from Beta(alpha, alpha); per_image: a lambda for each image; the place is the batch's
    in any case. `loss` registers its hooks for one forward pass. A network that is attached has
    hooks that stay: `mix` chooses the place, and the network's next forward pass in training mode
    mixes there.
    """

    NEEDS, LABEL = "a hook", "the weight lambda"
    net = cast("nn.Module | None", None)           # attached,
    attached = cast("Sequence[nn.Module]", ())     # its stages,
    hooks = cast("Sequence[RemovableHandle]", ())  # and the hooks in them
    # stage, batch permutation and weight of the next forward pass
    pending = cast("tuple[nn.Module, Tensor, Tensor] | None", None)

    alpha: float = number(2.0, 0, 100)
    stages: int = whole(2, 0, 100)
    per_image: bool = False

    @property
    def needs_network(self) -> bool:
        return True

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        if self.net is None:
            return mix(x, y, *self._draw(x))
        if self.stages > len(self.attached):
            raise ValueError(f"stages is {self.stages}, and bind was told {len(self.attached)}: "
                             "bind again")
        if self.pending is not None:
            warnings.warn("Manifold Mixup: the last batch was to be mixed inside the network, "
                          "which has not been run since, or had been compiled and run before bind",
                          stacklevel=3)
            self.pending = None
        pair, lam = self._draw(x)
        mixed = mix(x, y, pair, lam)
        place = self.draw_choice(range(1 + self.stages))
        if place == 0:
            return mixed
        assert mixed.share is not None
        self.pending = self.attached[place - 1], pair, mixed.share
        return Mixed(x, mixed.y, share=mixed.share, pair=pair)

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
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
        weights = torch.where(here.reshape(-1, *[1] * lam.ndim), lam, 1)
        share = as_column(lam, x).flatten()
        self.last = Mixed(x, blend(y, pair, share), share=share, pair=pair)
        return self.loss_of(forward(net, x, pair, weights), self.last.y)

    def attach(self, net: nn.Module,
               stages: str | nn.Module | Sequence[str | nn.Module] | None = None) -> None:
        """Register hooks in a network.

        stages: names of modules ("layer1", "layer2") or modules, in order; default net.stages.
        ValueError where there are too few, or one is not the network's.
        """
        if isinstance(eager(net), nn.DataParallel):
            raise ValueError("Manifold Mixup does not reach the copies that DataParallel makes: "
                             "use DistributedDataParallel")
        inner = uncompiled(net)
        if isinstance(stages, (str, nn.Module)):
            stages = [stages]
        named = stages or _stages_of(inner)
        found = [inner.get_submodule(s) if isinstance(s, str) else s for s in named]
        if not {id(s) for s in found} <= {id(m) for m in inner.modules()}:
            raise ValueError("a stage must be a module of the network, or its name")
        if len(found) < self.stages:
            raise ValueError(f"Manifold Mixup after {self.stages} stages needs as many; this "
                             f"network has {len(found)}: bind(model, stages=[...]) takes names, "
                             f"such as {[name for name, _ in inner.named_children()]}")
        self.detach()
        self.net, self.attached = inner, found
        self._register(inner)

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.net, self.attached, self.hooks, self.pending = None, (), (), None

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy: new hooks, in its network
        self.__dict__.update(state)
        if self.net is not None:
            self._register(self.net)

    def _register(self, net):
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
        pair = self.draw_permutation(len(x), x.device)
        return pair, self.draw_beta(self.alpha, x.device, *self._many(x))


build = ManifoldMixup
