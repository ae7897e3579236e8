"""A method of the catalogue in a loop of one's own: what all classes of `drop_in.py` do."""
import contextlib
import copy
import dataclasses
import random

import torch

from ._loop import carried, is_half, local, logits_of, soft_labels
from .methods._clean_pass import clean_pass
from .methods._guided import Guided


class DropIn:
    """A method of the catalogue for a loop of one's own.

    method: such as `catalog.load(methods, "cutmix")`; num_classes: of the labels. label_smoothing: of class numbers, in
    [0, 1). prob: share of the batches that are mixed. saliency: a function of the images (B, C, H, W) that gives maps
    (B, H, W) or (B, 1, H, W), at least 0, which take the place of the network's. seed: draw from generators of its
    own, on the images' device, instead of PyTorch's. A value out of range is a ValueError that says what is allowed.

    After a call `last` is its `Mixed`: x, y, and mask, tau, share, pair, saliency as far as the method has them; None
    where the batch was left alone. `enabled = False` stops the mixing, as for the last epochs.
    """

    bn = "as the method says"  # BatchNorm in the clean pass

    def __init__(self, method, num_classes, *, label_smoothing=0.0, prob=1.0, saliency=None, seed=None):
        if num_classes != int(num_classes) or num_classes < 1:
            raise ValueError(f"num_classes is {num_classes!r}; it must be a whole number, at least 1")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing!r}; it must be at least 0 and below 1")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob is {prob!r}; it must be a number from 0 to 1")
        if saliency is not None and not hasattr(method, "mix_by"):
            raise ValueError(f"{type(method).__name__} looks at no saliency: leave out saliency=")
        self.method, self.num_classes, self.label_smoothing = copy.copy(method), int(num_classes), label_smoothing
        self.prob, self.saliency, self.seed, self.enabled = prob, saliency, seed, True
        self.model = self.last = None

    def bind(self, model):
        """Look through this network from now on, plain, compiled, or in DistributedDataParallel; returns self."""
        self.model = model
        return self

    def __call__(self, x, target):
        """Images (B, C, H, W), normalised floats, and class numbers (B,) or soft labels (B, K) -> images, soft labels.

        The network is left as it was: every .grad and requires_grad, its modes, its running statistics.
        """
        x, y = x.detach(), soft_labels(x, target, self.num_classes, self.label_smoothing)
        if not self._mixes(x):
            return x, y
        mixed = self._mix(x, y)
        return mixed.x, mixed.y

    def loss(self, x, target, scaler=None):
        """The loss of one step by the method, a scalar to call .backward() on: for SAGE with gradient reuse.

        The gradient of the clean batch, where saliency came from, is part of it. `scaler`: the loop's GradScaler, if
        it has one. x and target as in a call.
        """
        x, y = x.detach(), soft_labels(x, target, self.num_classes, self.label_smoothing)
        net = self._network()
        if not self._mixes(x):
            return self._criterion(net(x), y)
        weight, mixed_weight = self.method.weights() if isinstance(self.method, Guided) else (0, 1)
        clean, s = 0, None
        if weight:
            scale = None if scaler is None else scaler.scale(torch.ones((), device=x.device))
            with self._passing("train") as inner:
                clean, grad = carried(inner, x, lambda out: weight * self._clean_loss(out, y), scale)
            s = self.method.seen(grad)
        mixed = self._mix(x, y, s)
        return mixed_weight * self._criterion(net(mixed.x), mixed.y) + clean

    def backward(self, x, target, scaler=None):
        """`loss`, and .backward() of it, through the scaler if there is one; returns the loss, detached."""
        loss = self.loss(x, target, scaler)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach()

    def _mixes(self, x):
        self.last, method = None, self.method
        if self.seed is not None and (method.generator is None or method.generator.device != x.device):
            method.seed(self.seed, x.device)
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
        s = s[:, None] if s.ndim == 3 else s
        if s.shape != (len(x), 1, *x.shape[2:]):
            raise ValueError(f"saliency= gave maps {tuple(s.shape)}; it must give {(len(x), *x.shape[2:])}")
        return s.to(x.device).float()

    def _look(self, x, y):
        size = 128 * len(x) if is_half(x) else 1  # the scale of maps means nothing, but half precision underflows
        with self._passing("batch") as net:
            return self.method.seen(clean_pass(net, x, lambda out: size * self._clean_loss(out, y), keep=False)[1])

    @contextlib.contextmanager
    def _passing(self, bn):
        if self.bn is None and hasattr(self.method, "bn"):
            self.method.bn = bn
        net = local(self._network())
        with self.method.passing(net):
            yield net

    def _criterion(self, out, y):
        return self.method.criterion(logits_of(out, self.num_classes), y)

    def _clean_loss(self, out, y):
        return self.method.clean_loss(logits_of(out, self.num_classes), y)

    def _network(self):
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__} needs the network: call .bind(model) first")
        return self.model
