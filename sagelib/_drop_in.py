"""A method of the catalogue in a loop of one's own: what all classes of `drop_in.py` do."""
import contextlib
import copy
import dataclasses
import random

import torch
from torch.nn.parameter import is_lazy

from ._loop import carried, check_network, loader_worker, local, logits_of, readable, soft_labels
from ._settings import Settings, looks_at_saliency
from .methods._clean_pass import clean_pass, unscaled
from .methods._guided import Guided
from .methods._method import Method


class DropIn(Settings):
    """A method of the catalogue for a loop of one's own.

    method: such as `catalog.load(methods, "cutmix")`; num_classes: of the labels; 1: one logit for
    two classes. label_smoothing: of class indices, in [0, 1). prob: share of the batches that are mixed. saliency: a
    function of the images (B, C, H, W) that gives maps (B, H, W) or (B, 1, H, W), at least 0, which take the place of
    the network's. seed: draw from generators of its own, on the images' device, instead of PyTorch's; on several
    processes give each its own seed. A value out of range is a ValueError that says what is allowed. The method's
    options can be read and changed as attributes.

    After a call `last` is its `Mixed`: x, y, and mask, tau, share, pair, saliency as far as the method has them; None
    where the batch was left alone. It is kept until the next call. `enabled = False` stops the mixing, as for the last
    epochs. A compiled step checks no values; methods that need no network break its graph only for a seed, or for a
    prob between 0 and 1.
    """

    bn = "as the method says"  # BatchNorm in the clean pass
    steps = (Method.backward, Guided.backward)  # methods with another step of their own do not fit

    def __init__(self, method, num_classes, *, label_smoothing=0.0, prob=1.0, saliency=None, seed=None):
        if not isinstance(method, Method):
            raise ValueError(f"method is {method!r}; give a method itself, such as catalog.load(methods, 'cutmix')")
        if saliency is not None:
            looks_at_saliency(method)
        if type(method).backward not in self.steps:
            raise ValueError(f"{type(method).__name__} has a step of its own: call its backward(net, x, y)"
                             + (", or use sagelib.ManifoldMixup" if hasattr(method, "stages") else ""))
        self.num_classes, self.label_smoothing, self.prob = num_classes, label_smoothing, prob
        self.saliency, self.seed, self.enabled, self.model, self.last = saliency, seed, True, None, None
        self._passed = False  # whether the network has been used without an error
        self._drawn_in = 0  # the process, by its worker's seed, that the generators were made in
        self.method = copy.copy(method)

    def __setstate__(self, state):  # of a copy, which has options of its own
        self.__dict__.update(state, method=copy.copy(state["method"]))

    def bind(self, model):
        """Look through this network from now on; returns self.

        An nn.Module that is called with the images alone and gives logits (B, K), a tuple that begins with them, or
        something that has `logits`; wrap one that takes more. Plain, compiled, in DistributedDataParallel, or set up by
        Lightning Fabric (then a call goes under `fabric.autocast()`, and the loss to `fabric.backward`); not in
        FSDP or ZeRO-3, whose weights are elsewhere.

        A network that takes or gives something else goes in a wrapper:

            class Logits(nn.Module):
                def __init__(self, net): super().__init__(); self.net = net
                def forward(self, x): return self.net(x, masks=None)["out"]
        """
        check_network(model, self.prob)
        self.model, self._passed = model, False
        return self

    def __call__(self, x, target):
        """Images (B, C, H, W), normalised floats, and class indices (B,) or soft labels (B, K) -> images, soft labels.

        With num_classes=1 the targets are 0 and 1, or between them, (B,) or (B, 1), and the labels (B, 1).
        The network keeps every .grad, every requires_grad, its modes and BatchNorm's running statistics. Layers with
        another state of their own (spectral norm) see one more forward, and dropout draws once more.
        """
        x, y = soft_labels(x, target, self.num_classes, self.label_smoothing)
        if not self._mixes(x):
            return x, y
        mixed = self._mix(x, y)
        return mixed.x, mixed.y

    def loss(self, x, target, scaler=None):
        """The loss of one step by the method, a scalar to call .backward() on: for SAGE with gradient reuse.

        The gradient of the clean batch, where saliency came from, is part of it; until .backward() it takes the memory
        of the weights once more. `scaler`: the loop's GradScaler, if it has one. Of several outputs of the network the
        first is trained. x and target as in a call.
        """
        x, y = soft_labels(x, target, self.num_classes, self.label_smoothing)
        net = self._network()
        if not self._mixes(x):
            return self._criterion(net(x), y)
        weight, mixed_weight = self.method.weights() if isinstance(self.method, Guided) else (0, 1)
        clean, s = 0, None
        if weight:
            scale = _underflow(x) if scaler is None else scaler.scale(torch.ones((), device=x.device))
            with self._passing("train") as inner:
                clean, grad = carried(inner, x, lambda out: weight * self._clean_loss(out, y), scale)
            s = self.method.seen(_there(grad, scale))
        mixed = self._mix(x, y, s)
        return mixed_weight * self._criterion(net(mixed.x), mixed.y) + clean

    def backward(self, x, target, scaler=None):
        """`loss`, and .backward() of it, through the scaler if there is one; returns the loss, detached."""
        loss = self.loss(x, target, scaler)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach()

    def _mixes(self, x):
        self.last, method = None, self.method
        if self.seed is not None:
            here = worker.seed if (worker := loader_worker()) else 0
            if method.generator is None or method.generator.device != x.device or self._drawn_in != here:
                method.seed((self.seed + here) % 2**63, x.device)
                self._drawn_in = here
        return self.enabled and (self.prob == 1 or (method.host or random).random() < self.prob)

    def _mix(self, x, y, s=None):
        if self.saliency is not None:
            s = self._own(x)
        elif s is None and isinstance(self.method, Guided):
            s = self._look(x, y)
        mixed = self.method.mix(x, y, self.model) if s is None else self.method.mix_by(x, y, s)
        if x.is_contiguous(memory_format=torch.channels_last):
            mixed.x = mixed.x.contiguous(memory_format=torch.channels_last)
        self.last = dataclasses.replace(mixed, saliency=s)
        return mixed

    def _own(self, x):
        with torch.no_grad():
            s = self.saliency(x)
        if not isinstance(s, torch.Tensor):
            raise ValueError(f"saliency= gave a {type(s).__name__}; it must give a tensor of maps")
        s = s[:, None] if s.ndim == 3 else s
        if s.shape != (len(x), 1, *x.shape[2:]):
            raise ValueError(f"saliency= gave maps {tuple(s.shape)}; it must give {(len(x), *x.shape[2:])}")
        if readable(s) and not (s.isfinite().all() and s.min() >= 0):
            raise ValueError("saliency= gave maps that are negative somewhere, or not finite: take abs() or clamp(0)")
        return s.detach().to(x.device).float()

    def _look(self, x, y):
        size = _underflow(x)
        with self._passing("batch") as net:
            grad = clean_pass(net, x, lambda out: size * self._clean_loss(out, y), keep=False)[1]
        return self.method.seen(_there(grad, size))

    @contextlib.contextmanager
    def _passing(self, bn):
        net = local(self._network())
        if loader_worker():
            raise RuntimeError("this is a DataLoader's worker, whose copy of the network never learns: mix in the "
                               "training loop, or give saliency=, a function of the images")
        first = not self._passed and not torch.compiler.is_compiling()
        before = [(b, b.clone()) for b in net.buffers() if not is_lazy(b)] if first else []
        try:
            with self.method.passing(net, bn if self.bn is None else None):
                yield net
        except Exception:  # a network that cannot be used is left as it was: the first pass shows it
            with torch.no_grad():
                for now, old in before:
                    now.copy_(old)
            raise
        self._passed = True

    def _criterion(self, out, y):
        return _scalar(self.method.criterion(logits_of(out, self.num_classes), y))

    def _clean_loss(self, out, y):
        return _scalar(self.method.clean_loss(logits_of(out, self.num_classes), y))

    def _network(self):
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} needs the network: call .bind(model) first")
        return self.model


def _scalar(loss):
    if loss.ndim:
        raise ValueError(f"the loss function gave {tuple(loss.shape)}; it must give a scalar, as with reduction='mean'")
    return loss


def _underflow(x):
    """What to scale the clean pass by: float16, which a network may choose inside, underflows.
    A power of two, which changes no digit elsewhere."""
    return torch.full((), 2.0 ** (6 + len(x).bit_length()), device=x.device)


def _there(grad, scale):
    """The gradient by the images without the scale; a RuntimeError where there is none."""
    if grad is None:
        raise RuntimeError("the network passes no gradient to the images: take out no_grad() or detach(), and freeze "
                           "layers by requires_grad=False")
    return unscaled(grad, scale)
