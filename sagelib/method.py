"""The contract of a mixing method: `mix`, `loss`, and options that are checked.

`mix(x, y, net) -> Mixed` returns mixed images and soft labels and changes nothing else.
`loss(net, x, y)` is the loss of one training step, a scalar; the caller calls `.backward()`. Images
are floats (B, C, H, W), normalised; labels are soft, (B, K), with rows that sum to 1; saliency maps
are (B, 1, H, W), at least 0.
"""
import dataclasses
import math
import numbers
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .losses import LOSSES, cross_entropy, logits_of
from .modes import evaluation_mode
from .saliency import saliency
from .stored_grad import input_gradient, loss_with_stored_grad


@dataclass
class Mixed:
    """Mixed images x (B, C, H, W) and soft labels y (B, K), and how they were made, as far as the
    method has it."""

    x: torch.Tensor
    y: torch.Tensor
    mask: torch.Tensor | None = None   # (B, 1, H, W): the image's share, the rest is its partner's
    tau: torch.Tensor | None = None    # (B, 2): how far the partner was moved, rows and columns
    share: torch.Tensor | None = None  # (B,): weight of the image's own label
    pair: torch.Tensor | None = None   # (B,): image i was mixed with image pair[i]
    saliency: torch.Tensor | None = None  # (B, 1, H, W): before any blur, up to a factor


def number(default, low, high):
    """A field that holds a number in [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def whole(default, low, high):
    """A field that holds a whole number from low to high."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "whole": True})


def per_channel(default, low):
    """A field that holds one number above `low` for each channel, or one number for all of them."""
    return dataclasses.field(default=default, metadata={"above": low})


def choice(default, *names):
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
    needs_network = False  # whether `mix` looks at the network
    last = None            # the Mixed of the latest step
    _made = False          # whether all options have been set

    criterion: str | Callable = dataclasses.field(
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

    def check_options(self):
        """ValueError for options that exclude each other."""

    def seed(self, seed, device="cpu"):
        """Draw from generators of its own, on that device and on the CPU; returns the method."""
        self.generator = torch.Generator(device).manual_seed(seed)
        self.cpu_rng = random.Random(seed)
        return self

    def options(self):
        """The options, name -> value, as records keep them: the criterion's name under `loss`."""
        found = {
            k: list(v) if isinstance(v := getattr(self, k), tuple) else v
            for k in option_names(self)
        }
        criterion = found.pop("criterion")
        return {"loss": criterion if isinstance(criterion, str) else _name(criterion), **found}

    def mix(self, x, y, net=None):
        """Images (B, C, H, W) and soft labels (B, K) -> Mixed; nothing else changes."""
        raise NotImplementedError(f"{type(self).__name__} has no mix(x, y, net)")

    def loss(self, net, x, y, scaler=None):
        """The loss of one training step, a scalar: `.backward()` of it is the caller's.

        net: called with images, gives logits (B, K), a tuple that begins with them, or something
        that has `logits`.
        scaler: the loop's GradScaler, which a method with a first pass through the network has to
        know.
        """
        mixed = self.last = self.mix(x, y, net)
        return self.loss_of(net(mixed.x), mixed.y)

    def loss_of(self, out, y):
        """The criterion of what the network gave for soft labels y (B, K), a scalar, in float32."""
        check_labels(y)
        found = (LOSSES.get(self.criterion) or self.criterion)(logits_of(out, y.shape[1]), y)
        if found.ndim:
            raise ValueError(f"the loss function gave {tuple(found.shape)}; it must give a "
                             "scalar, as with reduction='mean'")
        return found

    def attach(self, net, stages=None):
        """Prepare for this network, before its first step: for most methods nothing, and `stages`
        is an error."""
        if stages is not None:
            raise ValueError(f"{type(self).__name__} mixes images alone: leave out stages=, which "
                             "Manifold Mixup takes")

    def detach(self):
        """Take out of the network what `attach` put in."""

    def units(self):
        """Passes of a step through the network, forward and backward: 3, that is forward, backward
        to the layers' inputs, backward to the weights. A first pass that gives saliency adds 2, or
        3 if it also trains the weights."""
        return 3

    def state(self):
        """What one step leaves for the next, as tensors for a checkpoint; most methods: nothing."""
        return {}

    def load_state(self, state, device):
        """Take up what `state` gave."""

    # draws, all from the method's generator

    def draw_uniform(self, low, high, device, n=None):
        """One number from U(low, high), a 0-d tensor; with n, so many, (n,)."""
        u = torch.rand(() if n is None else (n,), generator=self.generator,
                       device=self._place(device))
        return (low + (high - low) * u).to(device)

    def draw_beta(self, alpha, device, n=None):
        """One number from Beta(alpha, alpha), a 0-d tensor; with n, so many, (n,). alpha = 0 gives
        1: no mixing."""
        many = () if n is None else (n,)
        if alpha == 0:
            return torch.ones(many, device=device)
        two = torch.full((*many, 2), float(alpha), device=self._place(device))
        return torch._sample_dirichlet(two, generator=self.generator)[..., 0].to(device)

    def draw_permutation(self, n, device):
        """A random order of n things, (n,)."""
        return torch.randperm(n, generator=self.generator, device=self._place(device)).to(device)

    def draw_choice(self, values):
        """One of these values, on the host: for what decides shapes, which a device could not tell
        without a wait."""
        return (self.cpu_rng or random).choice(list(values))

    def draw_seed(self):
        """A whole number below 2**31, on the host: for a library that draws for itself."""
        return (self.cpu_rng or random).randrange(2**31)

    def _many(self, x):
        """The last argument of a draw: none for the batch, as many as images with `per_image`."""
        return (len(x),) if self.per_image else ()

    def _place(self, device):
        return self.generator.device if self.generator is not None else device


@dataclass(kw_only=True)
class SaliencyGuided(Method):
    """A method that mixes by saliency; a pass of the clean batch through the network gives it.

    `saliency_fn`, a function of the images (B, C, H, W) that gives maps (B, H, W) or (B, 1, H, W),
    at least 0, takes the place of the network's maps; it is no option of the method and no part of
    a record.
    """

    saliency_fn = None

    @property
    def needs_network(self):
        return self.saliency_fn is None

    def mix_with_saliency(self, x, y, s):
        """Images and labels mixed by saliency maps s (B, 1, H, W), at least 0, of any
        scale -> Mixed."""
        raise NotImplementedError

    def saliency_loss(self, out, y):
        """The loss whose gradient with respect to the images is the saliency."""
        return cross_entropy(logits_of(out, y.shape[1]), y)

    def saliency_pass_mode(self, net, training=False):
        """The network's modes during the pass that gives saliency, as a context; `training`: as
        part of a step."""
        return evaluation_mode(net)

    def saliency_from_grad(self, grad):
        """Equation 1: gradient with respect to the images (B, C, H, W) -> maps (B, 1, H, W)."""
        return saliency(grad)

    def compute_saliency(self, net, x, y, training=False):
        """What `net` looks at in each image, or `saliency_fn`: maps (B, 1, H, W); every .grad stays
        as it was."""
        if self.saliency_fn is not None:
            return checked_maps(self.saliency_fn, x)
        if net is None:
            raise ValueError(f"{type(self).__name__} looks through the network: give it, mix(x, "
                             "y, net)")
        check_labels(y)
        with self.saliency_pass_mode(net, training):
            return self.saliency_from_grad(
                input_gradient(net, x, lambda out: self.saliency_loss(out, y)))

    def clean_pass(self, net, x, y, weight, scaler=None):
        """The clean batch in a step: weight times its loss, with its gradient stored, and the maps.

        With a weight of 0 the loss is 0 and the pass leaves no gradient. Maps of `saliency_fn` need
        no pass.
        """
        if weight == 0:
            return 0, self.compute_saliency(net, x, y, training=True)
        with self.saliency_pass_mode(net, training=True):
            clean, grad = loss_with_stored_grad(net, x,
                                                lambda out: weight * self.saliency_loss(out, y),
                                                scaler)
        if self.saliency_fn is not None:
            return clean, self.compute_saliency(net, x, y)
        return clean, self.saliency_from_grad(grad)

    def mix(self, x, y, net=None):
        return self.mix_with_saliency(x, y, self.compute_saliency(net, x, y))

    def units(self):
        return 5


def option_names(method):
    """The names of a method's options, which its constructor takes."""
    return [f.name for f in dataclasses.fields(method) if f.init]


def check_labels(y, n=None):
    """One clear error for labels that are not soft, or not for n images."""
    if y.ndim != 2 or not y.is_floating_point() or len(y) != (len(y) if n is None else n):
        raise ValueError(f"labels must be soft, floats of shape ({n or 'B'}, K), not {y.dtype} "
                         f"{tuple(y.shape)}; one_hot(labels, classes) makes them")


def _name(function):
    """A function's name, or that of an object's class, with its module."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def checked_maps(saliency_fn, x):
    """Saliency maps (B, 1, H, W), float32, without a graph, that a user's function gives for
    images x (B, C, H, W)."""
    with torch.no_grad():
        s = saliency_fn(x)
    if not isinstance(s, torch.Tensor):
        raise ValueError(f"saliency= gave a {type(s).__name__}; it must give a tensor of maps")
    s = s[:, None] if s.ndim == 3 else s
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"saliency= gave maps {tuple(s.shape)}; it must give "
                         f"{(len(x), *x.shape[2:])}")
    if readable(s) and not (s.isfinite().all() and s.min() >= 0):
        raise ValueError("saliency= gave maps that are negative somewhere, or not finite: take "
                         "abs() or clamp(0)")
    return s.detach().to(x.device).float()


def readable(z):
    """Whether the host can check values: not on another device, nor in a compiled step."""
    return z.is_cpu and not torch.compiler.is_compiling()


def blend(x, y, pair, weight, share):
    """weight * x + (1 - weight) * partner, labels by `share` (B,): what pair methods that move
    nothing end with."""
    weight = weight.to(x.dtype)
    return weight * x + (1 - weight) * x[pair], blend_labels(y, pair, share)


def blend_labels(y, pair, share):
    """Labels (B, K): `share` (B,) of the image's own, the rest its partner's."""
    share = share.to(y.dtype)[:, None]
    return share * y + (1 - share) * y[pair]


def check_pairs(x, y, pair):
    """One clear error for images, labels or a pairing of the wrong shape."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be floats of shape (B, C, H, W), not {x.dtype} "
                         f"{tuple(x.shape)}")
    check_labels(y, len(x))
    if pair.shape != (len(x),) or pair.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"the pairing must be integers of shape ({len(x)},), not {pair.dtype} "
                         f"{tuple(pair.shape)}")


def check_saliency(s, x):
    """Saliency maps (B, 1, H, W) for images x, or one clear error for another shape."""
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"saliency must be of shape {(len(x), 1, *x.shape[2:])}, not "
                         f"{tuple(s.shape)}")


def as_column(lam, x):
    """A mixing weight, a number or (B,), as float32 (B, 1, 1, 1) beside images x."""
    lam = scalar(lam, x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
    if lam.shape not in {(), (1,), (len(x),)}:
        raise ValueError(f"lam must be one number or one for each of the {len(x)} images, not "
                         f"{tuple(lam.shape)}")
    return lam.expand(len(x))[:, None, None, None]


def scalar(value, device, dtype=torch.float32):
    """A number or a tensor as a tensor on this device, without a copy from the host."""
    if isinstance(value, (int, float)):
        return torch.full((), float(value), device=device, dtype=dtype)
    return torch.as_tensor(value, device=device, dtype=dtype)


def _check_field(owner, f, value):
    rule = f.metadata
    if f.name == "generator" and not (value is None or isinstance(value, torch.Generator)):
        raise ValueError(f"{owner}: generator is {value!r}; it must be a torch.Generator, or "
                         "None; seed(7) makes one")
    if rule.get("functions") and callable(value):
        if isinstance(value, type):
            raise ValueError(f"{owner}: {f.name} is the class {value.__name__}; give an instance: "
                             f"{value.__name__}()")
        return
    if "names" in rule and value not in rule["names"]:
        raise ValueError(f"{owner}: {f.name} is {value!r}; it must be one of "
                         f"{', '.join(map(repr, rule['names']))}")
    if "low" in rule:
        kind = "a whole number" if rule.get("whole") else "a number"
        good = _is_number(value) and (not rule.get("whole") or value == int(value))
        if not (good and rule["low"] <= value <= rule["high"]):
            raise ValueError(f"{owner}: {f.name} is {value!r}; it must be {kind} from "
                             f"{rule['low']} to {rule['high']}")
    if "above" in rule:
        values = value if isinstance(value, (tuple, list)) else [value]
        if not values or not all(_is_number(v) and v > rule["above"] for v in values):
            raise ValueError(f"{owner}: {f.name} is {value!r}; it must be a number above "
                             f"{rule['above']}, or one for each channel")
    if f.type in (bool, "bool") and not isinstance(value, bool):
        raise ValueError(f"{owner}: {f.name} is {value!r}; it must be True or False")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
