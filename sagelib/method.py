"""The contract of a mixing method: `mix`, `loss`, and options that are checked.

`mix(x, y, net) -> Mixed` returns mixed images and soft labels and changes nothing else.
`loss(net, x, y)` is the loss of one training step, a scalar; the caller calls `.backward()`. Images
are floats (B, C, H, W), normalised; labels are soft, (B, K), with rows that sum to 1; saliency maps
are (B, 1, H, W), at least 0. This is one file, so that the author of a method need not read
another.
"""
from __future__ import annotations

import dataclasses
import math
import numbers
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn

from .compiled import Function, compiled
from .losses import LOSSES, cross_entropy, logits_of
from .modes import batchnorm_mode, evaluation_mode
from .saliency import saliency
from .stored_grad import input_gradient, loss_with_stored_grad

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SaliencyFn = Callable[[Tensor], Tensor]  # images -> maps

# a name, or a function of logits and labels that gives a scalar
Criterion = str | Callable[[Tensor, Tensor], Tensor]


@dataclass
class Mixed:
    """Mixed images (B, C, H, W) and soft labels (B, K), and how the method made them.

    mask: the image's share of each pixel, the rest is its partner's. tau: how far the partner was
    moved, rows and columns. share: weight of the image's own label. pair: image i was mixed with
    image pair[i]. saliency: before any blur.
    """

    x: Float[Tensor, "b c h w"]
    y: Float[Tensor, "b k"]
    mask: Float[Tensor, "b 1 h w"] | None = None
    tau: Int[Tensor, "b 2"] | None = None
    share: Float[Tensor, " b"] | None = None
    pair: Int[Tensor, " b"] | None = None
    saliency: Float[Tensor, "b 1 h w"] | None = None


def number(default: float, low: float, high: float) -> Any:
    """A field that holds a number in [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def whole(default: int, low: int, high: int) -> Any:
    """A field that holds a whole number from low to high."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "whole": True})


def per_channel(default: float, low: float) -> Any:
    """A field that holds one number above `low` for each channel, or one number for all of them."""
    return dataclasses.field(default=default, metadata={"above": low})


def choice(default: str, *names: str) -> Any:
    """A field that holds one of these names."""
    return dataclasses.field(default=default, metadata={"names": (default, *names)})


@dataclass(kw_only=True)
class Method:
    """A mixing method: its options are its fields, checked whenever they are set.

    criterion: "bce" is binary cross-entropy on the softmax, the mean over images and classes, which
    the paper's learning rate of 0.2 goes with (the authors' code); "cross_entropy" is the usual
    one; or a function of logits (B, K) and soft labels (B, K) that gives a scalar. A value out of
    range is a ValueError that says what is allowed.
    """

    # in words, for tables: what it takes, and what its label means
    NEEDS, LABEL = "nothing", "the image's own"
    last = cast("Mixed | None", None)  # of the latest step
    compiled = False                   # whether torch.compile makes the kernels of its arithmetic
    _made = False                      # whether all options have been set

    criterion: Criterion = dataclasses.field(
        default="bce", metadata={"names": ("bce", "cross_entropy"), "functions": True})
    generator: torch.Generator | None = dataclasses.field(default=None, init=False, repr=False)
    cpu_rng: random.Random | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self):
        if any(isinstance(value, dataclasses.Field) for value in vars(type(self)).values()):
            raise TypeError(f"{type(self).__name__} has options and is no dataclass: write "
                            "@dataclass(kw_only=True) above the class")
        self.check_options()
        self._made = True

    def __setattr__(self, name, value):
        rule = self.__dataclass_fields__.get(name)
        if rule is None:
            if not hasattr(type(self), name):
                raise AttributeError(f"{type(self).__name__} has no option {name!r}; it has: "
                                     f"{', '.join(option_names(self))}. What a method keeps "
                                     "between steps is declared in its class body")
            return super().__setattr__(name, value)
        if isinstance(value, numbers.Real) and type(value) not in (bool, int, float):  # NumPy's
            value = int(value) if isinstance(value, numbers.Integral) else float(value)
        _check_field(type(self).__name__, rule, value)
        before = getattr(self, name, None)
        super().__setattr__(name, value)
        if self._made:  # a change: the options still have to fit together
            try:
                self.check_options()
            except ValueError:
                super().__setattr__(name, before)
                raise

    @property
    def needs_network(self) -> bool:
        """Whether `mix` looks through the network."""
        return False

    def check_options(self) -> None:
        """ValueError for options that exclude each other."""

    def seed(self, seed: int, device: torch.device | str = "cpu") -> Self:
        """This method, which draws from its own generators from now on, on `device` and the CPU."""
        self.generator = torch.Generator(device).manual_seed(seed)
        self.cpu_rng = random.Random(seed)
        return self

    def options(self) -> dict[str, Any]:
        """The options, name -> value, as records keep them: the criterion's name under `loss`."""
        found = {name: getattr(self, name) for name in option_names(self)}
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}
        criterion = found.pop("criterion")
        return {"loss": criterion if isinstance(criterion, str) else _name(criterion), **found}

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        """Images (B, C, H, W) and soft labels (B, K) -> Mixed; nothing else changes."""
        raise NotImplementedError(f"{type(self).__name__} has no mix(x, y, net)")

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        """The loss of one training step, a scalar; the caller calls `.backward()`.

        net: called with images, gives logits (B, K), a tuple that begins with them, or something
        that has `logits`. scaler: the loop's GradScaler, for a method with a first pass through the
        network.
        """
        mixed = self.last = self.mix(x, y, net)
        return self.loss_of(net(mixed.x), mixed.y)

    def loss_of(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        """The criterion of a network's output and soft labels y (B, K), a scalar, in float32."""
        check_labels(y)
        criterion = self.criterion
        known = isinstance(criterion, str)
        function = self.arithmetic(LOSSES[criterion]) if known else criterion
        found = function(logits_of(out, y.shape[1]), y)
        if found.ndim:
            raise ValueError(f"the loss function gave {tuple(found.shape)}; it must give a "
                             "scalar, as with reduction='mean'")
        return found

    def arithmetic(self, function: Function) -> Function:
        """A pure function of tensors, or its compiled form where `compiled` is set."""
        return compiled(function) if self.compiled else function

    def attach(self, net: nn.Module, stages: Sequence[str | nn.Module] | None = None) -> None:
        """Prepare for this network, before its first step: for most methods nothing to do."""
        if stages is not None:
            raise ValueError(f"{type(self).__name__} mixes images alone: leave out stages=, which "
                             "Manifold Mixup takes")

    def detach(self) -> None:
        """Take out of the network what `attach` put in."""

    def units(self) -> int:
        """Passes of a step through the network: 3, forward, backward to inputs, and to weights.

        A first pass that gives saliency adds 2, or 3 if it also trains the weights.
        """
        return 3

    def state(self) -> dict[str, Tensor]:
        """What a step leaves for the next, as tensors for a checkpoint; mostly nothing."""
        return {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device | str) -> None:
        """Take up what `state` gave."""

    # draws, all from the method's generator

    def draw_uniform(self, low: float, high: float, device: torch.device | str,
                     *shape: int) -> Float[Tensor, "*shape"]:
        """Numbers from U(low, high), a tensor of this shape: without one a single number, 0-d."""
        u = torch.rand(shape, generator=self.generator, device=self._place(device))
        return (low + (high - low) * u).to(device)

    def draw_integers(self, high: int, device: torch.device | str,
                      *shape: int) -> Int[Tensor, "*shape"]:
        """Whole numbers from 0 to high - 1, each as likely, a tensor of this shape."""
        return torch.randint(high, shape, generator=self.generator,
                             device=self._place(device)).to(device)

    def draw_beta(self, alpha: float, device: torch.device | str,
                  *shape: int) -> Float[Tensor, "*shape"]:
        """Numbers from Beta(alpha, alpha), a tensor of this shape: without one a single one, 0-d.

        alpha = 0 gives 1: no mixing.
        """
        if alpha == 0:
            return torch.ones(shape, device=device)
        return self.draw_dirichlet(alpha, device, *shape, 2)[..., 0]

    def draw_dirichlet(self, alpha: float, device: torch.device | str,
                       *shape: int) -> Float[Tensor, "*shape"]:
        """Shares of this shape from Dirichlet(alpha, ..., alpha), which sum to 1 over the last."""
        concentration = torch.full(shape, float(alpha), device=self._place(device))
        return torch._sample_dirichlet(concentration, generator=self.generator).to(device)

    def draw_permutation(self, n: int, device: torch.device | str) -> Int[Tensor, " {n}"]:
        """A random order of n things, (n,)."""
        return torch.randperm(n, generator=self.generator, device=self._place(device)).to(device)

    def draw_choice(self, values: Iterable[Any]) -> Any:
        """One of these values, drawn on the host: for what decides shapes."""
        return (self.cpu_rng or random).choice(list(values))

    def draw_seed(self) -> int:
        """A whole number below 2**31, drawn on the host: for a library with its own generator."""
        return (self.cpu_rng or random).randrange(2**31)

    def _many(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a draw: one for the batch, or as many as images with `per_image`."""
        return (len(x),) if getattr(self, "per_image", False) else ()

    def _place(self, device: torch.device | str) -> torch.device | str:
        return self.generator.device if self.generator is not None else device


@dataclass(kw_only=True)
class SaliencyGuided(Method):
    """A method that mixes by saliency, from a pass of the clean batch through the network.

    `saliency_fn`, a function of the images (B, C, H, W) that gives maps (B, H, W) or (B, 1, H, W),
    at least 0, takes the place of the network's maps; it is no option of the method and no part of
    a record.
    """

    saliency_fn = cast("SaliencyFn | None", None)

    @property
    def needs_network(self) -> bool:
        return self.saliency_fn is None

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        """Images and labels mixed by saliency maps s (B, 1, H, W), at least 0, of any scale."""
        raise NotImplementedError

    def saliency_loss(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        """The loss whose gradient with respect to the images is the saliency."""
        return cross_entropy(logits_of(out, y.shape[1]), y)

    def saliency_pass_mode(self, net: nn.Module,
                           training: bool = False) -> AbstractContextManager[None]:
        """The network's modes in the pass that gives saliency; `training`: as part of a step.

        Evaluation mode; of a method with an option `bn`, BatchNorm's mode alone.
        """
        bn = getattr(self, "bn", None)
        if bn is None:
            return evaluation_mode(net)
        return batchnorm_mode(net, "batch" if bn == "train" and not training else bn)

    def saliency_from_grad(self, grad: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Equation 1: gradient with respect to the images (B, C, H, W) -> maps (B, 1, H, W)."""
        return saliency(grad)

    def compute_saliency(self, net: nn.Module | None, x: Float[Tensor, "b c h w"],
                         y: Float[Tensor, "b k"],
                         training: bool = False) -> Float[Tensor, "b 1 h w"]:
        """Maps (B, 1, H, W) by `saliency_fn`, or through `net`; every .grad stays as it was."""
        if self.saliency_fn is not None:
            return checked_maps(self.saliency_fn, x)
        if net is None:
            raise ValueError(f"{type(self).__name__} looks through the network: give it, mix(x, "
                             "y, net)")
        check_labels(y)
        with self.saliency_pass_mode(net, training):
            grad = input_gradient(net, x, lambda out: self.saliency_loss(out, y))
            return self.saliency_from_grad(grad)

    def clean_pass(
        self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
        scaler: torch.amp.GradScaler | None = None, reused: bool = True,
    ) -> tuple[Float[Tensor, ""] | float, Float[Tensor, "b 1 h w"]]:
        """The clean batch in a step: its loss, with its gradient stored, and its saliency maps.

        Where it is not `reused`, the loss is 0 and the pass computes no gradient of the weights.
        Maps of `saliency_fn` need no pass.
        """
        if not reused:
            return 0, self.compute_saliency(net, x, y, training=True)
        with self.saliency_pass_mode(net, training=True):
            clean, grad = loss_with_stored_grad(
                net, x, lambda out: self.saliency_loss(out, y), scaler)
        if self.saliency_fn is not None:
            return clean, self.compute_saliency(net, x, y)
        return clean, self.saliency_from_grad(grad)

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        return self.mix_with_saliency(x, y, self.compute_saliency(net, x, y))

    def units(self) -> int:
        return 5


def option_names(method: Method | type[Method]) -> list[str]:
    """The names of a method's options, which its constructor takes."""
    return [f.name for f in dataclasses.fields(method) if f.init]


def check_labels(y: Tensor, n: int | None = None) -> None:
    """One clear error for labels that are not soft, or not for n images."""
    if y.ndim != 2 or not y.is_floating_point() or len(y) != (len(y) if n is None else n):
        raise ValueError(f"labels must be soft, floats of shape ({n or 'B'}, K), not {y.dtype} "
                         f"{tuple(y.shape)}; one_hot(labels, classes) makes them")


def _name(function):
    """A function's name, or that of an object's class, with its module."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def checked_maps(saliency_fn: SaliencyFn,
                 x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Maps (B, 1, H, W) of a user's function for images x, float32, without a graph."""
    with torch.no_grad():
        s = saliency_fn(x)
    if not isinstance(s, Tensor):
        raise ValueError(f"saliency= gave a {type(s).__name__}; it must give a tensor of maps")
    s = s[:, None] if s.ndim == 3 else s
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"saliency= gave maps {tuple(s.shape)}; it must give "
                         f"{(len(x), *x.shape[2:])}")
    if readable(s) and not (s.isfinite().all() and s.min() >= 0):
        raise ValueError("saliency= gave maps that are negative somewhere, or not finite: take "
                         "abs() or clamp(0)")
    return s.detach().to(x.device).float()


def readable(z: Tensor) -> bool:
    """Whether the host can check values: not on another device, nor in a compiled step."""
    return z.is_cpu and not torch.compiler.is_compiling()


def blend(z: Float[Tensor, "b ..."], pair: Int[Tensor, " b"],
          weight: Float[Tensor, ...]) -> Float[Tensor, "b ..."]:
    """weight * z + (1 - weight) * z[pair], for images, labels or anything with the batch first.

    weight: one for the batch, (), one for each image, (B,), or one for each place, (B, 1, H, W).
    """
    weight = weight.to(z.dtype).reshape(weight.shape + (1,) * (z.ndim - weight.ndim))
    return weight * z + (1 - weight) * z[pair]


def check_pairs(x: Tensor, y: Tensor, pair: Tensor | None = None, s: Tensor | None = None) -> None:
    """One clear error for images, labels, a permutation or saliency maps of the wrong shape."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be floats of shape (B, C, H, W), not {x.dtype} "
                         f"{tuple(x.shape)}")
    check_labels(y, len(x))
    if pair is not None and (pair.shape != (len(x),)
                             or pair.dtype not in (torch.int64, torch.int32)):
        raise ValueError(f"the permutation must be integers of shape ({len(x)},), not {pair.dtype} "
                         f"{tuple(pair.shape)}")
    if s is not None:
        check_saliency(s, x)


def check_saliency(s: Tensor, x: Float[Tensor, "b c h w"]) -> None:
    """One clear error for saliency maps that are not (B, 1, H, W), as images x."""
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"saliency must be of shape {(len(x), 1, *x.shape[2:])}, not "
                         f"{tuple(s.shape)}")


def as_column(lam: float | Float[Tensor, "*n"],
              x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """A mixing weight, a number or (B,), as float32 (B, 1, 1, 1) beside images x."""
    lam = scalar(lam, x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
    if lam.shape not in {(), (1,), (len(x),)}:
        raise ValueError(f"lam must be one number or one for each of the {len(x)} images, not "
                         f"{tuple(lam.shape)}")
    return lam.expand(len(x))[:, None, None, None]


def scalar(value: float | Tensor, device: torch.device | str,
           dtype: torch.dtype = torch.float32) -> Tensor:
    """A number or a tensor as a tensor on this device, without a copy from the host."""
    if isinstance(value, (int, float)):
        return torch.full((), float(value), device=device, dtype=dtype)
    return torch.as_tensor(value, device=device, dtype=dtype)


def _check_field(owner, f, value):
    """ValueError for a value that the option f does not take."""
    rule = f.metadata
    if rule.get("functions") and callable(value):
        if isinstance(value, type):
            raise ValueError(f"{owner}: {f.name} is the class {value.__name__}; give an instance: "
                             f"{value.__name__}()")
        return
    good, allowed = True, ""
    if f.name == "generator":
        good = value is None or isinstance(value, torch.Generator)
        allowed = "a torch.Generator, or None; seed(7) makes one"
    elif "names" in rule:
        good = value in rule["names"]
        allowed = f"one of {', '.join(map(repr, rule['names']))}"
    elif "low" in rule:
        whole, low, high = rule.get("whole"), rule["low"], rule["high"]
        good = _is_number(value) and (not whole or value == int(value)) and low <= value <= high
        allowed = f"a {'whole ' if whole else ''}number from {low} to {high}"
    elif "above" in rule:
        values = value if isinstance(value, (tuple, list)) else [value]
        good = values and all(_is_number(v) and v > rule["above"] for v in values)
        allowed = f"a number above {rule['above']}, or one for each channel"
    elif f.type in (bool, "bool"):
        good, allowed = isinstance(value, bool), "True or False"
    if not good:
        raise ValueError(f"{owner}: {f.name} is {value!r}; it must be {allowed}")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
