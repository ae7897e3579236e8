"""Losses for soft labels, and one-hot labels.

The paper's tables are trained with binary cross-entropy on the softmax.

One logit for two classes, logits and labels (B, 1), counts as the logits (-z/2, z/2): both losses
are then binary cross-entropy of the logit z.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from .modes import without_autocast
from .saliency import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def bce(logits: Float[Tensor, "b k"], y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Binary cross-entropy on the softmax, mean over images and classes: the authors' code.

    Logarithms stop at -100.
    """
    if _one_logit(logits, y):
        return _binary(logits, y)
    with without_autocast(logits.device):
        p = at_least_float32(logits).softmax(1)
        # a NaN would stop the program inside binary_cross_entropy; here it becomes the loss, which
        # fit reports
        return F.binary_cross_entropy(p.nan_to_num(0.5), y.to(p.dtype)) + 0 * p.sum()


def cross_entropy(logits: Float[Tensor, "b k"], y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Cross-entropy with soft labels, mean over images."""
    if _one_logit(logits, y):
        return _binary(logits, y)
    logits = at_least_float32(logits)
    return F.cross_entropy(logits, y.to(logits.dtype))


def class_score(logits: Float[Tensor, "b k"], y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """The logits weighted by soft labels, summed over images and classes, in float32 or float64.

    Its gradient with respect to an image is that of the image's own class score: Simonyan, Vedaldi,
    Zisserman 2014, https://arxiv.org/abs/1312.6034, section 3. One logit z counts as -z/2 and z/2.
    """
    weight = y - 0.5 if _one_logit(logits, y) else y
    return (at_least_float32(logits) * weight).sum()


def _one_logit(logits, y):
    """Whether logits and labels are (B, 1); ValueError if their shapes differ."""
    if logits.shape != y.shape:
        raise ValueError(f"the network gives logits {tuple(logits.shape)}, the labels are "
                         f"{tuple(y.shape)}: it must have as many outputs as there are classes")
    return y.shape[1] == 1


def _binary(logits, y):
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))


def logits_of(out: Any, classes: int) -> Float[Tensor, "b {classes}"]:
    """Logits (B, classes) of a network's output: a tensor, the first of several, or its `.logits`.

    ValueError if there are none, or not one for each class.
    """
    if isinstance(out, dict) and "logits" in out:
        out = out["logits"]
    out = getattr(out, "logits", out)
    if isinstance(out, (tuple, list)):
        out = out[0]
    if not isinstance(out, Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, dict) else ""
        raise ValueError(f"the network gives a {type(out).__name__}{keys}; it must give logits, "
                         "or something that has logits: bind a wrapper that does")
    if out.ndim != 2 or out.shape[1] != classes:
        one_logit = out.ndim == 2 and out.shape[1] == 1
        hint = "; one logit for two classes is num_classes=1" if one_logit else ""
        raise ValueError(f"the network gives {tuple(out.shape)}; with num_classes={classes} it "
                         f"must give logits (B, {classes}){hint}")
    return out


LOSSES = {"bce": bce, "cross_entropy": cross_entropy}


def one_hot(labels: Int[Tensor, " b"], classes: int) -> Float[Tensor, "b {classes}"]:
    """Class indices (B,) -> labels (B, classes), float32."""
    return F.one_hot(labels, classes).float()
