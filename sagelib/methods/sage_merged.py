"""SAGE in one pass per step, from https://arxiv.org/abs/2211.00113; it is not in the paper. How it
differs from SAGE:

- a step runs the network once, over the images mixed in the step before and the clean batch of this
  one. The loss is the same weighted sum, each half has its own BatchNorm statistics (first the
  mixed half, then the clean one), and the gradient with respect to the clean images mixes them for
  the step that follows;
- so saliency is one step older than the weights it meets, and the clean gradient comes from the
  batch after the mixed one;
- the first step has nothing mixed yet and trains only on its clean batch; a batch of another size
  than the first one is an ordinary SAGE step, and the mixed images are kept for a later one.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..losses import logits_of
from ..modes import BATCHNORM
from ..stored_grad import loss_with_stored_grad
from ..unwrap import uncompiled, unwrapped
from . import sage

if TYPE_CHECKING:
    from jaxtyping import Float

SETTINGS = sage.SETTINGS


@dataclass(kw_only=True)
class SageMerged(sage.Sage):
    """The options of SAGE; `reuse` must be above 0: the clean half is in the batch in any case."""

    # images and labels that the next step trains on; written in place
    waiting = cast("list[Tensor] | None", None)

    def check_options(self) -> None:
        if self.reuse == 0 or self.bn != "train":
            raise ValueError("SageMerged: reuse must be above 0 and bn 'train', since one pass "
                             "serves both halves; Sage has reuse=0 and bn='eval'")

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        if self.waiting is not None and len(x) != len(self.waiting[0]):
            return super().loss(net, x, y, scaler)
        if unwrapped(net) is not net:
            raise ValueError("SageMerged trains a network as it is, not in a wrapper such as "
                             "DistributedDataParallel: Sage does")
        net = uncompiled(net)  # compiled, it would not see the halves
        if self.waiting is None:
            loss, grad = loss_with_stored_grad(net, x, lambda out: self.loss_of(out, y), scaler)
        else:
            (images, labels), n = self.waiting, len(x)

            def both(out):
                out = logits_of(out, y.shape[1])
                return ((1 - self.reuse) * self.loss_of(out[:n], labels) +
                        self.reuse * self.loss_of(out[n:], y))

            with halves(net, n):
                loss, grad = loss_with_stored_grad(net, torch.cat([images, x]), both, scaler)
        mixed = self.mix_with_saliency(x, y, self.saliency_from_grad(grad[-len(x):]))
        self.last = mixed
        if self.waiting is None:
            self.waiting = [torch.empty_like(mixed.x), torch.empty_like(mixed.y)]
        for mine, new in zip(self.waiting, (mixed.x, mixed.y), strict=True):
            mine.copy_(new)
        return loss

    def state(self) -> dict[str, Any]:
        return {} if self.waiting is None else {"waiting": list(self.waiting)}

    def load_state(self, state: Mapping[str, Any], device: torch.device | str) -> None:
        self.waiting = [z.to(device) for z in state["waiting"]] if state else None


@contextlib.contextmanager
def halves(net: nn.Module, n: int) -> Iterator[None]:
    """A context in which BatchNorm in training sees two batches: the first n images, the rest."""
    def in_halves(forward):
        return lambda input: torch.cat([forward(input[:n]), forward(input[n:])])

    norms = [m for m in net.modules() if isinstance(m, BATCHNORM) and m.training]
    try:
        for m in norms:
            m.forward = in_halves(m.forward)
        yield
    finally:
        for m in norms:
            m.__dict__.pop("forward", None)


build = SageMerged
