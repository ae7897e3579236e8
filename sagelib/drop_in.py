"""The methods where timm's or torchvision's Mixup stands in a training loop: `x, y = mix(x, target)`.

    mix = SAGE(num_classes=10).bind(model)
    x, y = mix(x, target)            # then the loop goes on as it was, with soft labels
    loss = mix.loss(x, target)       # or: Algorithm 1 with gradient reuse, then loss.backward() as ever

Both work under autocast and a GradScaler, in DistributedDataParallel, with accumulated gradients, on compiled networks.
Source: Ma et al., "SAGE", BMVC 2022, Algorithm 1; the other methods' are in their files under `methods`.
"""
import dataclasses
import inspect
import warnings

import torch

from ._drop_in import DropIn
from ._loop import check_loss, uncompiled
from .methods import comixup, cutmix, manifold_mixup, mixup, puzzlemix, sage, saliencymix
from .methods._method import Mixed

ALL = """

    num_classes: of the labels; 1 for a network with one logit for two classes, whose targets are 0 and 1 and whose
    labels (B, 1) are the probability of class 1. loss: "cross_entropy", "bce" (the paper's tables), or a function
    (logits, soft labels) -> scalar; for one logit both names are binary cross-entropy. label_smoothing: of class
    indices, in [0, 1). prob: share of the batches that are mixed. saliency: your own maps, a function of the images
    (B, C, H, W) that gives (B, H, W) or (B, 1, H, W), at least 0, for a method that uses saliency. seed: draw from
    generators of its own. After a call `last` has what was done, a `Mixed`; with `enabled = False` batches pass as
    they are. Options can be read and changed as attributes.
    """


class _Named(DropIn):
    """A method by its own class; the options are the method's."""

    BUILD, bn = None, None

    def __init_subclass__(cls):
        cls.__doc__ = cls.__doc__.rstrip() + ALL
        own = [f for f in dataclasses.fields(cls.BUILD) if f.init and f.name not in ("generator", "loss")]
        cls.DEFAULTS = {"loss": "cross_entropy", "label_smoothing": 0.0, "prob": 1.0, "saliency": None, "seed": None,
                        **{f.name: None if f.name == "bn" else f.default for f in own}}
        keyword = [inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v) for k, v in cls.DEFAULTS.items()]
        cls.__signature__ = inspect.Signature(
            [inspect.Parameter("num_classes", inspect.Parameter.POSITIONAL_OR_KEYWORD), *keyword])

    def __init__(self, num_classes, *, loss="cross_entropy", label_smoothing=0.0, prob=None, saliency=None, seed=None,
                 **options):
        for name in options:
            if name not in self.DEFAULTS:
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has: {', '.join(self.DEFAULTS)}")
        check_loss(loss, num_classes)
        self.bn = options.get("bn")
        options = {k: v for k, v in options.items() if k != "bn" or v is not None}
        prob = self.DEFAULTS["prob"] if prob is None else prob
        if "prob" in self.BUILD.__dataclass_fields__:  # it is drawn here, and not by the method again
            options["prob"] = 1.0
        method = self.BUILD(loss="cross_entropy" if callable(loss) else loss, **options)
        if callable(loss):
            method.criterion = loss
        super().__init__(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency, seed=seed)


class SAGE(_Named):
    """Saliency-guided mixup with optimal rearrangements: Algorithm 1 of the paper.

    u: lambda is uniform on (0, u). reuse: share of the clean gradient in `loss`; a call has none. fraction: part of all
    shifts that is searched. sigma: of the blur of the maps, pixels. norm: "l2" or "l1" over the channels. per_image: a
    lambda and shifts for each image. bn: BatchNorm in the clean pass, "train", "batch" or "eval"; unless told, a call
    leaves the running statistics alone ("batch"), and `loss` updates them with both batches, as the paper's code does.
    `SAGE(10, loss="bce", u=0.6, reuse=0.3)` is the paper's setting for CIFAR-10, whose learning rate of 0.2 goes with
    that loss.
    """

    BUILD = sage.Sage


class Mixup(_Named):
    """Mixup: lambda from Beta(alpha, alpha), for the batch or, with per_image, for each image. Needs no network."""

    BUILD = mixup.Mixup


class CutMix(_Named):
    """CutMix: a box of area 1 - lambda, lambda from Beta(alpha, alpha); per_image: one for each. Needs no network."""

    BUILD = cutmix.CutMix


class SaliencyMix(_Named):
    """SaliencyMix: a box around the partner's most salient point, or the peak of your own map. Needs no network.

    mean, std: of the normalised images. prob: 0.5 as in its paper. The other options as in `methods/saliencymix.py`.
    """

    BUILD = saliencymix.SaliencyMix


class PuzzleMix(_Named):
    """Puzzle Mix: blocks of two images by a minimum cut, then moved by a transport plan. Needs scipy and numba.

    mean, std: of the normalised images, to get back to pixels; the other options as in `methods/puzzlemix.py`.
    """

    BUILD = puzzlemix.PuzzleMix


class CoMixup(_Named):
    """Co-Mixup: up to `partition` images mixed jointly, by cells. Needs scipy and numba.

    clean: weight of the clean loss in `loss`; a call has none. The other options as in `methods/comixup.py`.
    """

    BUILD = comixup.CoMixup


class ManifoldMixup(_Named):
    """Manifold Mixup: Mixup of the images, or inside the network after one of its first `stages` stages.

    A call says where and returns soft labels; the next forward of the network in training mode mixes there. The stages
    are the network's `.stages`, or those that `bind` is told; a stage whose activations are recomputed (checkpointing)
    must not be one of them.
    """

    BUILD = manifold_mixup.ManifoldMixup
    steps = (BUILD.backward,)

    def bind(self, model, stages=None):
        """As in DropIn. stages: names of modules ("layer1", "layer2") or modules, in order; default model.stages."""
        inner = getattr(model, "_orig_mod", model)
        if isinstance(inner, torch.nn.DataParallel):
            raise ValueError("Manifold Mixup does not reach the copies that DataParallel makes: use "
                             "DistributedDataParallel")
        super().bind(model)
        net = uncompiled(model)
        stages = [stages] if isinstance(stages, (str, torch.nn.Module)) else stages
        found = [net.get_submodule(s) if isinstance(s, str) else s for s in stages or getattr(net, "stages", ())]
        if not {id(s) for s in found} <= {id(m) for m in net.modules()}:
            raise ValueError("a stage must be a module of the network, or its name")
        if len(found) < self.method.stages:
            raise ValueError(f"Manifold Mixup after {self.method.stages} stages needs as many; this network has "
                             f"{len(found)}: bind(model, stages=[...]) takes names, such as "
                             f"{[name for name, _ in net.named_children()]}")
        self.unbind()
        self.model, self._stages = model, found
        self._set_hooks()
        return self

    def _set_hooks(self):
        self._hooks = [stage.register_forward_hook(self._hook()) for stage in self._stages]

    def __setstate__(self, state):  # of a copy: hooks of its own, in its own network
        super().__setstate__(state)
        if self.model is not None:
            self._set_hooks()

    def unbind(self):
        """Take the hooks out of the network again, as before it is pickled whole."""
        for hook in getattr(self, "_hooks", ()):
            hook.remove()
        self._hooks, self._stages, self._next, self.model = [], [], None, None

    def _mixes(self, x):
        self._network()
        if self._next is not None:
            warnings.warn("Manifold Mixup: the last batch was to be mixed inside the network, which has not been run "
                          "since, or had been compiled and run before bind", stacklevel=3)
            self._next = None
        return super()._mixes(x)

    def loss(self, x, target, scaler=None):
        loss = super().loss(x, target, scaler)
        if self._next is not None:
            self._next = None
            raise RuntimeError("Manifold Mixup mixes inside a network in training mode, and this one was not, or had "
                               "been compiled and run before bind: call net.train()")
        return loss

    def _mix(self, x, y, s=None):
        if self.method.stages > len(self._stages):
            raise ValueError(f"stages is {self.method.stages}, and bind was told {len(self._stages)}: bind again")
        mixed = self.method.mix(x, y)
        place = self.method.draw_choice(range(1 + self.method.stages))
        if place:
            self._next = self._stages[place - 1], mixed.pair, mixed.share
            mixed = Mixed(x, mixed.y, share=mixed.share, pair=mixed.pair)
        self.last = mixed
        return mixed

    def _hook(self):
        net = uncompiled(self.model)
        @torch.compiler.disable
        def mix_here(stage, _, out):  # a closure: a copy of the network takes it along as it is, and is never mixed
            if self._next is None or self._next[0] is not stage or not net.training:
                return out
            (_, pair, share), self._next = self._next, None
            if isinstance(out, tuple):
                return manifold_mixup.blend(out[0], pair, share), *out[1:]
            return manifold_mixup.blend(out, pair, share)
        return mix_here
