"""SAGE in one pass per step, from https://arxiv.org/abs/2211.00113; it is not in the paper. How it
differs from SAGE:

- a step runs the network once, over the pictures mixed in the step before and the clean batch of
  this one. The loss is the same weighted sum, each half has BatchNorm statistics of its own (first
  the mixed half, then the clean one), and the gradient by the clean images mixes them for the step
  that follows;
- so saliency is one step older than the weights it meets, and the clean gradient comes from the
  batch after the mixed one;
- the first step has nothing mixed yet and trains on its clean batch alone; a batch of another size
  than the first one is an ordinary SAGE step, and the mixed pictures wait.
"""
import contextlib
from dataclasses import dataclass

import torch

from ..losses import logits_of
from ..method import Mixed
from ..modes import BATCHNORM
from ..stored_grad import loss_with_stored_grad
from ..unwrap import uncompiled, unwrapped
from . import sage

SETTINGS = sage.SETTINGS


@dataclass(kw_only=True)
class SageMerged(sage.Sage):
    """The options of SAGE; `reuse` must be above 0, since the clean half is in the batch in any
    case."""

    waiting = None  # images and labels that the next step trains on; written in place

    def check_options(self):
        if self.reuse == 0 or self.bn != "train":
            raise ValueError("SageMerged: reuse must be above 0 and bn 'train', since one pass "
                             "serves both halves; Sage has reuse=0 and bn='eval'")

    def loss(self, net, x, y, scaler=None):
        if self.waiting is not None and len(x) != len(self.waiting[0]):
            return super().loss(net, x, y, scaler)
        if unwrapped(net) is not net:
            raise ValueError("SageMerged trains a network as it is, not in a wrapper such as "
                             "DistributedDataParallel: Sage does")
        net = uncompiled(net)  # compiled, it would not see the halves
        if self.waiting is None:
            loss, grad = loss_with_stored_grad(net, x, lambda out: self.loss_of(out, y), scaler)
        else:
            mixed, n = Mixed(*self.waiting), len(x)

            def both(out):
                out = logits_of(out, y.shape[1])
                return ((1 - self.reuse) * self.loss_of(out[:n], mixed.y) +
                        self.reuse * self.loss_of(out[n:], y))

            with halves(net, n):
                loss, grad = loss_with_stored_grad(net, torch.cat([mixed.x, x]), both, scaler)
        self.last = self.mix_with_saliency(x, y, self.saliency_from_grad(grad[-len(x):]))
        self._keep(self.last)
        return loss

    def state(self):
        return {} if self.waiting is None else {"waiting": list(self.waiting)}

    def load_state(self, state, device):
        self.waiting = [z.to(device) for z in state["waiting"]] if state else None

    def _keep(self, mixed):
        if self.waiting is None:
            self.waiting = [torch.empty_like(mixed.x), torch.empty_like(mixed.y)]
        for mine, new in zip(self.waiting, (mixed.x, mixed.y), strict=True):
            mine.copy_(new)


@contextlib.contextmanager
def halves(net, n):
    """Every BatchNorm that trains sees the first n images of a batch, then the others, as two
    batches."""
    norms = [m for m in net.modules() if isinstance(m, BATCHNORM) and m.training]
    try:
        for m in norms:
            m.forward = lambda z, whole=m.forward: torch.cat([whole(z[:n]), whole(z[n:])])
        yield
    finally:
        for m in norms:
            m.__dict__.pop("forward", None)


build = SageMerged
