"""SAGE with a transformer's attention as its saliency maps; it is not in SAGE's paper.

https://arxiv.org/abs/2211.00113. Where SAGE takes the gradient of the loss with respect to the
images, this takes the attention of the class token to the patches, in the last block, the mean over
heads: what TransMix (https://arxiv.org/abs/2111.09833) reads. Each pixel has the value of its
patch; then all is as in SAGE, the smoothing too. The maps cost one forward pass of the clean images
without gradient, so that a step is 4 units where SAGE's is 5 or 6. For the same reason nothing can
be reused: the pass leaves no gradient of the clean batch, so `reuse` must be 0. And the maps know
no label: attention says where the network looks, not what would change the loss of this class.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..attention import attention_of, enlarged
from ..method import number
from . import sage

if TYPE_CHECKING:
    from jaxtyping import Float

ATTENTION = True  # it trains the networks that give some


@dataclass(kw_only=True)
class SageAttention(sage.Sage):
    """The options of SAGE but `reuse`, which is 0, and `norm`, which is of a gradient."""

    NEEDS = "attention, a search"

    reuse: float = number(0.0, 0, 1)

    def check_options(self) -> None:
        if self.reuse != 0:
            raise ValueError(f"SageAttention: reuse is {self.reuse}; attention comes from a pass "
                             "without gradient, which leaves nothing to reuse: it must be 0. Sage "
                             "has reuse")
        if self.norm != "l2":
            raise ValueError(f"SageAttention: norm is {self.norm!r}, of a gradient, and there is "
                             "none: leave it out")

    def units(self) -> int:
        return 4

    def compute_saliency(self, net: nn.Module | None, x: Float[Tensor, "b c h w"],
                         y: Float[Tensor, "b k"],
                         training: bool = False) -> Float[Tensor, "b 1 h w"]:
        if self.saliency_fn is not None or net is None:
            return super().compute_saliency(net, x, y, training)
        with self.saliency_pass_mode(net, training):
            return enlarged(attention_of(net, x, "SageAttention"), x)


build = SageAttention
