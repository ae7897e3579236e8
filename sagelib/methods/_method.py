"""What every method is: two verbs, typed fields, draws from one generator, one loss.

`mix(x, y, net) -> Mixed` makes pictures and soft labels; `backward(net, x, y) -> loss` adds to the
gradient of the network. Images are (B, C, H, W) floats, labels (B, K) with rows that sum to 1.
"""
import dataclasses
import math
import numbers
import random
from dataclasses import dataclass

import torch

from .._constants import scalar
from ..losses import LOSSES


@dataclass
class Mixed:
    """Mixed images x (B, C, H, W) and labels y (B, K), and how they were made where the method has it."""

    x: torch.Tensor
    y: torch.Tensor
    mask: torch.Tensor | None = None   # (B, 1, H, W): share of the image itself, the rest is its partner's
    tau: torch.Tensor | None = None    # (B, 2): how far the partner was moved, rows and columns
    share: torch.Tensor | None = None  # (B,): weight of the image's own label
    pair: torch.Tensor | None = None   # (B,): image i was mixed with image pair[i]
    saliency: torch.Tensor | None = None  # (B, 1, H, W): the maps that decided it, before any blur


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
    """A method's options are its fields; a value out of range is a ValueError that says what is allowed.

    `loss`: "bce" is binary cross-entropy on the softmax, the mean over images and classes, which the
    paper's learning rate of 0.2 belongs to (the authors' code); "cross_entropy" is the usual one.
    """

    NEEDS, LABEL = "nothing", "the image's own"  # in words, for tables: what it takes, and what its label means

    loss: str = choice("bce", "cross_entropy")
    generator: torch.Generator | None = dataclasses.field(default=None, repr=False)
    host: random.Random | None = dataclasses.field(default=None, init=False, repr=False)  # draws that decide shapes

    def __post_init__(self):
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, numbers.Real) and type(value) not in (bool, int, float):  # such as NumPy's
                setattr(self, f.name, int(value) if isinstance(value, numbers.Integral) else float(value))
            _check_field(type(self).__name__, f, getattr(self, f.name))

    def seed(self, seed, device="cpu"):
        """Draw from now on from generators of its own, on that device and on the host; returns the method."""
        self.generator, self.host = torch.Generator(device).manual_seed(seed), random.Random(seed)
        return self

    def options(self):
        """The fields that settle what the method does, name -> value."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("generator", "host")]
        return {k: list(v) if isinstance(v := getattr(self, k), tuple) else v for k in names}

    def mix(self, x, y, net=None):
        """Images (B, C, H, W) and labels (B, K) -> Mixed; the inputs are not written to."""
        raise NotImplementedError

    def backward(self, net, x, y, scale=lambda loss: loss):
        """Add this batch's gradient to `net`; returns the loss, detached. `scale` is a GradScaler's."""
        mixed = self.mix(x, y, net)
        loss = self.criterion(net(mixed.x), mixed.y)
        scale(loss).backward()
        return loss.detach()

    def criterion(self, logits, y):
        """Loss of logits (B, K) for soft labels (B, K), a scalar; computed in float32."""
        return LOSSES[self.loss](logits, y)

    def units(self):
        """Passes of a step through the network, forward and backward: 3, that is forward, backward to the layers'
        inputs, backward to the weights. A first pass that gives saliency adds 2, or 3 if it also trains the weights."""
        return 3

    def state(self):
        """What one step leaves for the next, as tensors for a checkpoint: for most methods nothing."""
        return {}

    def load_state(self, state, device):
        """Take up what `state` gave."""

    # draws, all from the method's generator

    def draw_uniform(self, low, high, device, n=None):
        """One number from U(low, high), a 0-d tensor; with n, so many, (n,)."""
        u = torch.rand(() if n is None else (n,), generator=self.generator, device=self._place(device))
        return (low + (high - low) * u).to(device)

    def draw_beta(self, alpha, device, n=None):
        """One number from Beta(alpha, alpha), a 0-d tensor; with n, so many, (n,). alpha = 0 gives 1: no mixing."""
        many = () if n is None else (n,)
        if alpha == 0:
            return torch.ones(many, device=device)
        two = torch.full((*many, 2), float(alpha), device=self._place(device))
        return torch._sample_dirichlet(two, generator=self.generator)[..., 0].to(device)

    def draw_permutation(self, n, device):
        """A random order of n things, (n,)."""
        return torch.randperm(n, generator=self.generator, device=self._place(device)).to(device)

    def draw_choice(self, values):
        """One of these values, on the host: for what decides shapes, which a device could not tell without a wait."""
        return (self.host or random).choice(list(values))

    def draw_seed(self):
        """A whole number below 2**31, on the host: for a library that draws for itself."""
        return (self.host or random).randrange(2**31)

    def _many(self, x):
        """What to add to a draw's arguments: nothing, for the batch, or so many as images, where `per_image` asks."""
        return (len(x),) if self.per_image else ()

    def _place(self, device):
        return self.generator.device if self.generator is not None else device


def blend(x, y, pair, weight, share):
    """weight * x + (1 - weight) * partner, labels by `share` (B,): what pair methods that move nothing end with."""
    weight = weight.to(x.dtype)
    return weight * x + (1 - weight) * x[pair], blend_labels(y, pair, share)


def blend_labels(y, pair, share):
    """Labels (B, K): `share` (B,) of the image's own, the rest its partner's."""
    share = share.to(y.dtype)[:, None]
    return share * y + (1 - share) * y[pair]


def check_pairs(x, y, pair):
    """One clear error for images, labels or a pairing of the wrong shape."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be floats of shape (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if y.ndim != 2 or len(y) != len(x) or not y.is_floating_point():
        raise ValueError(f"labels must be soft, floats of shape ({len(x)}, K), not {y.dtype} {tuple(y.shape)}; "
                         "one_hot(labels, classes) makes them")
    if pair.shape != (len(x),) or pair.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"the pairing must be integers of shape ({len(x)},), not {pair.dtype} {tuple(pair.shape)}")


def check_saliency(s, x):
    """Saliency maps (B, 1, H, W) for images x, or one clear error for another shape."""
    if s.shape != (len(x), 1, *x.shape[2:]):
        raise ValueError(f"saliency must be of shape {(len(x), 1, *x.shape[2:])}, not {tuple(s.shape)}")


def as_column(lam, x):
    """A mixing weight, a number or (B,), as float32 (B, 1, 1, 1) beside images x."""
    lam = scalar(lam, x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
    if lam.shape not in {(), (1,), (len(x),)}:
        raise ValueError(f"lam must be one number or one for each of the {len(x)} images, not {tuple(lam.shape)}")
    return lam.expand(len(x))[:, None, None, None]


def _check_field(owner, f, value):
    rule = f.metadata
    if "names" in rule and value not in rule["names"]:
        raise ValueError(f"{owner}: {f.name} is {value!r}; it must be one of {', '.join(map(repr, rule['names']))}")
    if "low" in rule:
        kind = "a whole number" if rule.get("whole") else "a number"
        good = _is_number(value) and (not rule.get("whole") or value == int(value))
        if not (good and rule["low"] <= value <= rule["high"]):
            raise ValueError(f"{owner}: {f.name} is {value!r}; it must be {kind} from "
                             f"{rule['low']} to {rule['high']}")
    if "above" in rule:
        values = value if isinstance(value, (tuple, list)) else [value]
        if not values or not all(_is_number(v) and v > rule["above"] for v in values):
            raise ValueError(f"{owner}: {f.name} is {value!r}; it must be a number above {rule['above']}, "
                             "or one for each channel")
    if f.type in (bool, "bool") and not isinstance(value, bool):
        raise ValueError(f"{owner}: {f.name} is {value!r}; it must be True or False")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
