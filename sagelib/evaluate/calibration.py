"""Calibration: expected calibration error, likelihood, reliability diagram.

Is a network right as often as its confidence says? C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On
Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

    from .accuracy import LabelledBatches

    PerBin = Float64[Tensor, " bins"]

BINS = 15


def reliability(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"],
                bins: int = BINS) -> tuple[PerBin, PerBin, PerBin]:
    """Count, accuracy and mean confidence of each of `bins` equal bins of confidence, (bins,) x 3.

    On the CPU, from logits (N, K) and labels (N,). Confidence is the largest probability; a value
    on an edge belongs to the bin above, 1 to the last. Accuracy and confidence are fractions, 0 in
    an empty bin.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels) or bins < 1:
        raise ValueError("calibration needs logits (N, K) and labels (N,), N and bins at least "
                         f"1; not {tuple(logits.shape)}, {tuple(labels.shape)} and {bins} bins")
    logits, labels = logits.cpu(), labels.cpu()  # float64, which a Mac's GPU does not have
    sure, guess = logits.double().softmax(1).max(1)
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    where = (torch.bucketize(sure, edges, right=True) - 1).clamp(0, bins - 1)
    zero = torch.zeros(bins, dtype=torch.float64)
    count = zero.index_add(0, where, torch.ones_like(sure))
    right = zero.index_add(0, where, (guess == labels).double()) / count.clamp(min=1)
    return count, right, zero.index_add(0, where, sure) / count.clamp(min=1)


def expected_calibration_error(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"],
                               bins: int = BINS) -> float:
    """ECE in [0, 1]: the gap between accuracy and confidence, averaged over bins by images."""
    return _gap(*reliability(logits, labels, bins))


def _gap(count, right, sure):
    return float((count * (right - sure).abs()).sum() / count.sum())


def negative_log_likelihood(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean cross-entropy in nats."""
    return float(F.cross_entropy(logits.cpu().double(), labels.cpu()))


def scores(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"],
           bins: int = BINS) -> dict[str, Any]:
    """ECE, NLL, and the reliability diagram as lists: what a record keeps."""
    count, right, sure = reliability(logits, labels, bins)
    return {
        "ece": _gap(count, right, sure),
        "nll": negative_log_likelihood(logits, labels),
        "bins": {"count": [int(c) for c in count], "accuracy": right.tolist(),
                 "confidence": sure.tolist()},
    }


@torch.no_grad()
def logits_of(net: nn.Module,
              batches: LabelledBatches) -> tuple[Float[Tensor, "n k"], Int[Tensor, " n"]]:
    """Logits (N, K) and labels (N,) of all batches, on the CPU, in the network's present mode."""
    pairs = [(net(x).float().cpu(), y.argmax(1).cpu()) for x, y in batches]
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])
