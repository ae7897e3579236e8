"""The mixing mask: Equation 2 of SAGE (Ma et al., BMVC 2022, section 3.2)."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .saliency import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


def mask(a: Float[Tensor, "*#shape"], b: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Share of each pixel owned by the first image, (..., H, W) in [0, 1]. Equation 2.

    `a` and `b` are saliency maps of the first and of the second image, at least 0, of shapes that
    broadcast. Where both are 0 the share is 0, as with the paper's small constant in the
    denominator.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    total = a + b
    return a / torch.where(total > 0, total, 1)
