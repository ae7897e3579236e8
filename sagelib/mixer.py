"""The methods for your training loop, in place of timm's or torchvision's Mixup.

    mix = SAGE(num_classes=10).bind(model)
    x, y = mix(x, target)        # then the loop goes on as it was, with soft labels
    loss = mix.loss(x, target)   # or: Algorithm 1 with gradient reuse, then loss.backward()

Both work under autocast and a GradScaler, in DistributedDataParallel, with accumulated gradients,
on compiled networks. The sources of the methods are in their files under `methods`. It is one file,
since the nine typed functions repeat the options of their methods for editors.
"""
from __future__ import annotations

import contextlib
import copy
import math
import numbers
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .losses import one_hot
from .method import Criterion, Method, Mixed, SaliencyFn, option_names, readable
from .methods import (
    comixup,
    cutmix,
    manifold_mixup,
    mixup,
    puzzlemix,
    rmix,
    sage,
    saliencymix,
    transmix,
)
from .unwrap import check_network, loader_worker

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

M = TypeVar("M", bound=Method)


def _whole(value, low, high=math.inf):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and low <= value < high


OWN = {  # what a Mixer itself is told: which values are allowed, and how that is said
    "num_classes": (lambda v: _whole(v, 1), "a whole number, at least 1"),
    "label_smoothing": (lambda v: isinstance(v, numbers.Real) and 0 <= float(v) < 1,
                        "a number, at least 0 and below 1"),
    "prob": (lambda v: isinstance(v, numbers.Real) and 0 <= float(v) <= 1, "a number from 0 to 1"),
    "seed": (lambda v: v is None or _whole(v, 0, 2**63),
             "a whole number from 0 to 2**63 - 1, or None"),
    "saliency": (lambda v: v is None or callable(v), "a function of the images, or None"),
    "enabled": (lambda v: isinstance(v, bool), "True or False"),
}


class Mixer(Generic[M]):
    """A mixing method for your training loop.

    method: such as `CutMix(alpha=0.5)` of `sagelib.methods.cutmix`. num_classes: of the labels; 1
    for a network with one logit for two classes, whose targets are 0 and 1 and whose labels (B, 1)
    are the probability of class 1. label_smoothing: of class indices, in [0, 1). prob: share of the
    batches that are mixed. saliency: a function of the images (B, C, H, W) that gives maps
    (B, H, W) or (B, 1, H, W), at least 0, in place of the network's: a call then needs no network,
    and `loss` still trains on the clean batch where the method reuses it. seed: draw from its
    own generators, on the images' device, instead of PyTorch's; on several processes give each its
    own seed.

    A value out of range is a ValueError, also when it is set later. The method's options are read
    and changed on `method`: `mix.method.u = 0.5`. Its criterion is the loss: "bce" unless told,
    where `SAGE(10)` and its sisters take cross-entropy.

    After a call `last` is its `Mixed`: x, y, and mask, tau, share, pair, saliency as far as the
    method has them; None where the batch was left alone. It is kept until the next call.
    `enabled = False` stops the mixing, as for the last epochs. A compiled step checks no values;
    methods that need no network break its graph only for a seed, or for a prob between 0 and 1.
    """

    method: M
    model: nn.Module | None

    def __init__(self, method: M, num_classes: int, *, label_smoothing: float = 0.0,
                 prob: float = 1.0, saliency: SaliencyFn | None = None,
                 seed: int | None = None) -> None:
        if not isinstance(method, Method):
            raise ValueError(f"method is {method!r}; give a method itself, such as "
                             "catalog.load(methods, 'cutmix')")
        self.__dict__.update(method=_copied(method), model=None)
        self.num_classes, self.label_smoothing, self.prob = num_classes, label_smoothing, prob
        self.seed, self.enabled = seed, True
        if saliency is not None:
            self.saliency = saliency
        self._passed = False  # whether the network has been used without an error
        self._drawn_in = 0  # the process, by its worker's seed, that the generators were made in
        self.method.last = None
        if num_classes == 1 and (method.criterion is F.cross_entropy
                                 or isinstance(method.criterion, nn.CrossEntropyLoss)):
            raise ValueError("cross-entropy over one logit is always 0; for num_classes=1 give "
                             "loss='cross_entropy' or BCEWithLogitsLoss(), or use two logits: "
                             "num_classes=2")

    def __setattr__(self, name, value):
        if name in OWN:
            fits, words = OWN[name]
            if not fits(value):
                shown = f"a {type(value).__name__}" if name == "saliency" else repr(value)
                raise ValueError(f"{name} is {shown}; it must be {words}")
            if name == "seed" and name in self.__dict__:
                self.method.generator = self.method.cpu_rng = None  # the next batch makes new ones
            value = int(value) if name in ("num_classes", "seed") and value is not None else value
        elif name in ("method", "model"):
            raise AttributeError(f"{name} cannot be replaced: " + (
                "build another Mixer" if name == "method" else "call .bind(model)"))
        elif not name.startswith("_"):
            raise AttributeError(f"a Mixer has no {name!r} that can be set; it has "
                                 f"{', '.join(OWN)}; the method's "
                                 "options are set on its `method`: "
                                 f"{', '.join(option_names(self.method))}")
        super().__setattr__(name, value)

    def __setstate__(self, state):  # of a copy, which has options of its own
        self.__dict__.update(state, method=_copied(state["method"]))

    def __repr__(self):
        own = {k: getattr(self, k) for k in ("label_smoothing", "prob", "seed")}
        own["model"] = self.model and type(self.model).__name__
        shown = ", ".join(f"{k}={v!r}" for k, v in own.items())
        return f"Mixer({self.method}, {self.num_classes}, {shown})"

    @property
    def saliency(self) -> SaliencyFn | None:
        """The function that gives maps in place of the network, or None."""
        return getattr(self.method, "saliency_fn", None)

    @saliency.setter
    def saliency(self, function: SaliencyFn | None) -> None:
        method: Any = self.method
        if hasattr(method, "saliency_fn"):
            method.saliency_fn = function
        elif function is not None:
            raise ValueError(f"{type(self.method).__name__} looks at no saliency: leave out "
                             "saliency=")

    @property
    def last(self) -> Mixed | None:
        """The `Mixed` of the latest batch, None where it was left alone."""
        return self.method.last

    def bind(self, model: nn.Module, stages: Sequence[str | nn.Module] | None = None) -> Self:
        """This Mixer, which looks through the network `model` from now on.

        An nn.Module that is called with the images alone and gives logits (B, K), a tuple that
        begins with them, or something that has `logits`; wrap one that takes more. Plain, compiled,
        in DistributedDataParallel, or set up by Lightning Fabric (then a call goes under
        `fabric.autocast()`, and the loss to `fabric.backward`); not in FSDP or ZeRO-3, whose
        weights are elsewhere. Manifold Mixup takes `stages`: names of modules ("layer1", "layer2")
        or modules, in order; without it they are model.stages.

        A network that takes or gives something else goes in a wrapper:

            class Logits(nn.Module):
                def __init__(self, net): super().__init__(); self.net = net
                def forward(self, x): return self.net(x, masks=None)["out"]
        """
        check_network(model, self.prob)
        self.method.attach(model, stages)
        self.__dict__.update(model=model, _passed=False)
        return self

    def unbind(self) -> None:
        """Leave the network, as before it is pickled: Manifold Mixup's hooks are taken out."""
        self.method.detach()
        self.__dict__["model"] = None

    def __call__(
        self, x: Float[Tensor, "b c h w"], target: Shaped[Tensor, "b ..."],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
        """Mixed images (B, C, H, W) and their soft labels (B, K).

        x: normalised images, floats. target: class indices (B,) or soft labels (B, K); with
        num_classes=1 they are 0 and 1, or between them, (B,) or (B, 1), and the labels (B, 1).

        The network keeps every .grad, every requires_grad, its modes and BatchNorm's running
        statistics. Layers with another state of their own (spectral norm) see one more forward, and
        dropout draws once more.
        """
        x, y = soft_labels(x, target, self.num_classes, self.label_smoothing)
        if not self._mixes(x):
            return x, y
        with self._looking() as net:
            mixed = self.method.last = self.method.mix(x, y, net)
        if x.is_contiguous(memory_format=torch.channels_last):
            mixed.x = mixed.x.contiguous(memory_format=torch.channels_last)
        return mixed.x, mixed.y

    def loss(self, x: Float[Tensor, "b c h w"], target: Shaped[Tensor, "b ..."],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        """The loss of one step by the method, a scalar to call .backward() on.

        The gradient of the clean batch, where saliency came from, is part of it; until .backward()
        it takes the memory of the weights once more. `scaler`: the loop's GradScaler, if it has
        one. Of several outputs of the network the first is trained. x and target as in a call.
        """
        x, y = soft_labels(x, target, self.num_classes, self.label_smoothing)
        net = self._network()
        if not self._mixes(x):
            return self.method.loss_of(net(x), y)
        with self._looking():
            return self.method.loss(net, x, y, scaler)

    def state_dict(self) -> dict[str, Any]:
        """Where the generators of `seed` are, for a checkpoint; {} without a seed."""
        method = self.method
        if method.generator is None or method.cpu_rng is None:
            return {}
        return {"generator": method.generator.get_state(), "device": str(method.generator.device),
                "host": method.cpu_rng.getstate()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the draws of a `state_dict`; a loader's workers draw anew."""
        if state:
            try:
                generator = torch.Generator(state["device"])
            except (RuntimeError, AssertionError) as error:
                raise ValueError(f"these draws were made on {state['device']}, which is not here; "
                                 "they go on there, or start anew from a seed") from error
            generator.set_state(state["generator"].cpu())
            version, numbers_, gauss = state["host"]
            cpu_rng = random.Random()
            cpu_rng.setstate((version, tuple(numbers_), gauss))
            self.method.generator, self.method.cpu_rng = generator, cpu_rng
            self._drawn_in = 0

    def _mixes(self, x: Tensor) -> bool:
        """Whether this batch is mixed; the generators are made where there are none."""
        method = self.method
        method.last = None
        if self.seed is not None:
            worker = loader_worker()
            here = worker.seed if worker else 0
            there = method.generator and method.generator.device
            if there != x.device or self._drawn_in != here:
                method.seed((self.seed + here) % 2**63, x.device)
                self._drawn_in = here
        return self.enabled and (self.prob == 1 or (method.cpu_rng or random).random() < self.prob)

    def _network(self) -> nn.Module:
        if self.model is None:
            name = type(self.method).__name__
            raise RuntimeError(f"{name} needs the network: call .bind(model) first")
        return self.model

    def _looking(self) -> AbstractContextManager[nn.Module | None]:
        return self._watched() if self.method.needs_network else contextlib.nullcontext(self.model)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[nn.Module]:
        """The network, whose buffers are put back if its first pass fails."""
        net = self._network()
        if loader_worker():
            raise RuntimeError("this is a DataLoader's worker, whose copy of the network never "
                               "learns: mix in the training loop, or give saliency=, a function "
                               "of the images")
        first = not self._passed and not torch.compiler.is_compiling()
        buffers = [b for b in net.buffers() if not is_lazy(b)] if first else []
        before = [(b, b.clone()) for b in buffers]
        try:
            yield net
        except Exception:
            with torch.no_grad():
                for now, old in before:
                    now.copy_(old)
            raise
        self._passed = True


def SAGE(num_classes: int, *, u: float = 0.6, reuse: float = 0.3, fraction: float = 0.01,
         sigma: float = 1.0, norm: Literal["l2", "l1"] = "l2",
         bn: Literal["train", "eval", "batch"] = "train", per_image: bool = False,
         guided: bool = True, rearranged: bool = True, loss: Criterion = "cross_entropy",
         label_smoothing: float = 0.0, prob: float = 1.0, saliency: SaliencyFn | None = None,
         seed: int | None = None) -> Mixer[sage.Sage]:
    """Saliency-guided mixup with optimal rearrangements: Algorithm 1 of the paper, as a Mixer.

    u: lambda is uniform on (0, u). reuse: share of the clean gradient in `loss`; a call has none.
    fraction: part of all shifts that is searched. sigma: of the blur of the maps, pixels. norm:
    "l2" or "l1" over the channels. per_image: a lambda and shifts for each image. bn: BatchNorm in
    the clean pass of `loss`: "train" updates the running statistics with both batches, as the
    paper's code does, "batch" and "eval" with the mixed one; a call updates none. guided,
    rearranged: False are the ablations, as in `methods/sage.py`. loss: "cross_entropy", "bce" (the
    paper's tables), or a function of logits and soft labels that gives a scalar; for one logit both
    names are binary cross-entropy. num_classes, label_smoothing, prob, saliency, seed: as in Mixer.

    `SAGE(10, loss="bce", u=0.6, reuse=0.3)` is the paper's setting for CIFAR-10, whose learning
    rate of 0.2 goes with that loss.
    """
    method = sage.Sage(criterion=loss, u=u, reuse=reuse, fraction=fraction, sigma=sigma, norm=norm,
                       bn=bn, per_image=per_image, guided=guided, rearranged=rearranged)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency,
                 seed=seed)


def Mixup(num_classes: int, *, alpha: float = 1.0, per_image: bool = False,
          loss: Criterion = "cross_entropy", label_smoothing: float = 0.0, prob: float = 1.0,
          seed: int | None = None) -> Mixer[mixup.Mixup]:
    """Mixup, as a Mixer: lambda from Beta(alpha, alpha).

    A call needs no network. The other parameters are as in SAGE.

    per_image: a lambda for each image.
    """
    method = mixup.Mixup(criterion=loss, alpha=alpha, per_image=per_image)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, seed=seed)


def CutMix(num_classes: int, *, alpha: float = 1.0, per_image: bool = False,
           loss: Criterion = "cross_entropy", label_smoothing: float = 0.0, prob: float = 1.0,
           seed: int | None = None) -> Mixer[cutmix.CutMix]:
    """CutMix, as a Mixer: a box of area 1 - lambda, lambda from Beta(alpha, alpha).

    A call needs no network. The other parameters are as in SAGE.

    per_image: a box for each image.
    """
    method = cutmix.CutMix(criterion=loss, alpha=alpha, per_image=per_image)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, seed=seed)


def TransMix(num_classes: int, *, alpha: float = 1.0, area: float = 0.5,
             pooling: Literal["nearest", "average"] = "nearest", per_image: bool = False,
             loss: Criterion = "cross_entropy", label_smoothing: float = 0.0, prob: float = 1.0,
             seed: int | None = None) -> Mixer[transmix.TransMix]:
    """TransMix, as a Mixer: CutMix's images, with labels by a transformer's attention to them.

    The network must give its attention: `net(x, with_attention=True)` returns logits and maps
    (B, 1, h, w), as vit_tiny of `sagelib.models` does. `loss` reads it in the pass that it trains;
    a call makes one more, without gradient. The other parameters are as in SAGE.

    area: weight of CutMix's share in the label, 0 for attention alone. pooling: of the box to the
    patches. per_image: a box for each image.
    """
    method = transmix.TransMix(criterion=loss, alpha=alpha, area=area, pooling=pooling,
                               per_image=per_image)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, seed=seed)


def SaliencyMix(num_classes: int, *, alpha: float = 1.0, published: bool = False,
                per_image: bool = False, detector: Literal["builtin", "opencv"] = "builtin",
                mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0,
                loss: Criterion = "cross_entropy", label_smoothing: float = 0.0, prob: float = 0.5,
                saliency: SaliencyFn | None = None,
                seed: int | None = None) -> Mixer[saliencymix.SaliencyMix]:
    """SaliencyMix, as a Mixer: a box around the partner's most salient point, or your map's peak.

    A call needs no network. The other options are in `methods/saliencymix.py`, the other parameters
    as in SAGE.

    mean, std: of the normalised images. prob: 0.5 as in its paper.
    """
    # prob is drawn by the Mixer, and not again by the method
    method = saliencymix.SaliencyMix(criterion=loss, alpha=alpha, prob=1.0, published=published,
                                     per_image=per_image, detector=detector, mean=mean, std=std)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency,
                 seed=seed)


def PuzzleMix(num_classes: int, *, alpha: float = 1.0, beta: float = 1.2, gamma: float = 0.5,
              eta: float = 0.2, t_eps: float = 0.8, transport: bool = True, per_image: bool = False,
              mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0,
              solver: Literal["exact", "swap"] = "exact", loss: Criterion = "cross_entropy",
              label_smoothing: float = 0.0, prob: float = 1.0, saliency: SaliencyFn | None = None,
              seed: int | None = None) -> Mixer[puzzlemix.PuzzleMix]:
    """Puzzle Mix, as a Mixer: blocks of two images by a minimum cut, moved by a transport plan.

    Needs scipy and numba. The other options are in `methods/puzzlemix.py`, the other parameters as
    in SAGE.

    mean, std: of the normalised images, to get back to pixels. solver: of the labels, "exact" or
    the authors' approximate "swap".
    """
    method = puzzlemix.PuzzleMix(criterion=loss, alpha=alpha, beta=beta, gamma=gamma, eta=eta,
                                 t_eps=t_eps, transport=transport, per_image=per_image, mean=mean,
                                 std=std, solver=solver)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency,
                 seed=seed)


def CoMixup(num_classes: int, *, partition: int = 20, beta: float = 0.32, gamma: float = 1.0,
            eta: float = 0.05, omega: float = 0.001, threshold: float = 0.83, alpha: float = 2.0,
            sweeps: int = 4, clean: float = 1.0, bn: Literal["train", "batch"] = "train",
            solver: Literal["exact", "swap"] = "exact", loss: Criterion = "cross_entropy",
            label_smoothing: float = 0.0, prob: float = 1.0,
            saliency: SaliencyFn | None = None, seed: int | None = None) -> Mixer[comixup.CoMixup]:
    """Co-Mixup, as a Mixer: up to `partition` images mixed jointly, by cells.

    Needs scipy and numba. The other options are in `methods/comixup.py`, the other parameters as in
    SAGE.

    clean: weight of the clean loss in `loss`; a call has none. bn: "train" or "batch". solver: of
    the labellings, "exact" or the authors' approximate "swap".
    """
    method = comixup.CoMixup(criterion=loss, partition=partition, beta=beta, gamma=gamma, eta=eta,
                             omega=omega, threshold=threshold, alpha=alpha, sweeps=sweeps,
                             clean=clean, bn=bn, solver=solver)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency,
                 seed=seed)


def RMix(num_classes: int, *, alpha: float = 1.0, cells: int = 0, per_image: bool = False,
         loss: Criterion = "cross_entropy", label_smoothing: float = 0.0, prob: float = 1.0,
         saliency: SaliencyFn | None = None, seed: int | None = None) -> Mixer[rmix.RMix]:
    """R-Mix, as a Mixer: where one image alone is salient it is shown, elsewhere the two are mixed.

    What counts as salient is drawn for each image. The other parameters are as in SAGE.

    cells: of the grid, a side; 0 draws 2 or 4 for each batch. per_image: a lambda for each image.
    """
    method = rmix.RMix(criterion=loss, alpha=alpha, cells=cells, per_image=per_image)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, saliency=saliency,
                 seed=seed)


def ManifoldMixup(num_classes: int, *, alpha: float = 2.0, stages: int = 2,
                  per_image: bool = False, loss: Criterion = "cross_entropy",
                  label_smoothing: float = 0.0, prob: float = 1.0,
                  seed: int | None = None) -> Mixer[manifold_mixup.ManifoldMixup]:
    """Manifold Mixup, as a Mixer: Mixup of the images, or after one of the first `stages` stages.

    A call says where and returns soft labels; the next forward of the network in training mode
    mixes there, so no other Mixer may look through the network between the two. The stages are the
    network's `.stages`, or those that `bind` is told; a stage whose activations are recomputed
    (checkpointing) must not be one. The rest is as in SAGE.
    """
    method = manifold_mixup.ManifoldMixup(criterion=loss, alpha=alpha, stages=stages,
                                          per_image=per_image)
    return Mixer(method, num_classes, label_smoothing=label_smoothing, prob=prob, seed=seed)


def _copied(method: M) -> M:
    """A method with options and draws of its own, which go on where the other's are."""
    method = copy.copy(method)
    if method.generator is not None:
        method.generator = method.generator.clone_state()
    method.cpu_rng = copy.copy(method.cpu_rng)
    return method


def soft_labels(
    x: Float[Tensor, "b c h w"], target: Shaped[Tensor, "b ..."], classes: int,
    smoothing: float = 0.0,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b {classes}"]]:
    """Images x, detached, and labels (B, classes), float32.

    target: class indices (B,) or soft targets (B, classes); with one class, the probability of
    class 1, from 0 to 1, (B,) or (B, 1).
    """
    for name, z in (("images", x), ("targets", target)):
        if not isinstance(z, Tensor):
            raise TypeError(f"{name} must be a tensor, not a {type(z).__name__}")
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError("this is torch.inference_mode, where nothing can be trained: mix in "
                           "the training loop")
    if x.ndim != 4 or not x.is_floating_point() or len(x) == 0:
        raise ValueError(f"images must be normalised floats (B, C, H, W), not {x.dtype} "
                         f"{tuple(x.shape)}")
    if target.device != x.device:
        raise ValueError(f"images are on {x.device}, targets on {target.device}: move the batch "
                         "to one device first")
    if classes == 1:
        return x.detach(), _probability(target, len(x), smoothing)
    whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    if target.shape == (len(x),) and whole:
        target = target.long()
        if readable(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
            raise ValueError(f"class indices must be from 0 to {classes - 1}, not "
                             f"{int(target.min())} to {int(target.max())}")
        y = one_hot(target, classes)
        return x.detach(), y * (1 - smoothing) + smoothing / classes
    if target.shape != (len(x), classes) or not target.is_floating_point():
        raise ValueError(f"targets must be class indices ({len(x)},) or soft labels ({len(x)}, "
                         f"{classes}), floats; they are {target.dtype} {tuple(target.shape)}")
    return x.detach(), target.detach().float()


def _probability(target, n, smoothing):
    """Labels (n, 1), float32, of the classes 0 and 1 for a network with one logit."""
    if target.shape not in {(n,), (n, 1)} or target.is_complex():
        raise ValueError("num_classes=1 is one logit for two classes: targets must be 0 and 1, "
                         f"({n},) or ({n}, 1), not {target.dtype} {tuple(target.shape)}")
    y = target.detach().float().reshape(n, 1)
    if readable(y) and not ((y >= 0) & (y <= 1)).all():
        raise ValueError("num_classes=1 is one logit for two classes: targets must be from 0 to "
                         f"1, not {y.min():g} to {y.max():g}; for class indices num_classes is "
                         "the number of the network's logits")
    return y if target.is_floating_point() else y * (1 - smoothing) + smoothing / 2
