"""TransMix: J.-N. Chen, S. Sun, J. He, P. Torr, A. Yuille, S. Bai, "TransMix: Attend to Mix for
Vision Transformers", CVPR 2022. https://arxiv.org/abs/2111.09833

The images are CutMix's. The labels follow what the network looks at: the share of an image is the
attention of the class token inside its part of the mixed image, in the last block, the mean over
heads. It is read in the very forward pass that is trained, and the label takes no gradient.

Where the paper's equation and the authors' code (https://github.com/Beckschen/TransMix, Apache-2.0,
a source of facts) differ, and what we do:
- the equation's share is the attention alone. The code, and the paper's section 4.1, take the mean
  of that and of CutMix's area; all of the paper's results come from it. It is `area=0.5`, the
  default; `area=0` is the equation;
- the code takes a patch for the partner's if its first pixel, at the top left, is inside the box:
  the nearest neighbour. It is `pooling="nearest"`; "average" counts the part of the patch that is;
- attention adds up to 1 over the patches in the equation. In the code the softmax has the class
  token too, and the sum over the patches is scaled to 1 after the mean over heads; so it is here.
  Heads that attend to the class token count less;
- their runs mix four batches of five so, and one by plain Mixup with alpha 0.8, reverse the batch
  for partners, smooth labels by 0.1, and take cross-entropy. Here every batch is mixed, as by
  CutMix, with a random permutation, and the criterion is the method's.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import attention_of, enlarged, output_and_attention
from ..method import Mixed, blend, choice, number
from ..modes import evaluation_mode
from ..saliency import at_least_float32
from . import cutmix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

ATTENTION = True  # it trains the networks that give some


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], pair: Int[Tensor, " b"],
        box: Int[Tensor, " 4"] | Int[Tensor, "b 4"] | Sequence[int],
        attention: Float[Tensor, "b 1 h2 w2"], area: float = 0.5,
        pooling: str = "nearest") -> Mixed:
    """`cutmix.mix`, with labels by the attention to the mixed images' patches, (B, 1, h, w).

    attention: at least 0, of any scale. area: weight of CutMix's share; pooling: see
    `share_of_attention`.
    """
    pasted = cutmix.mix(x, y, pair, box)
    assert pasted.mask is not None
    return relabelled(pasted, y, attention, shares(pasted.mask, attention, area, pooling))


def relabelled(pasted: Mixed, y: Float[Tensor, "b k"], attention: Float[Tensor, "b 1 h2 w2"],
               share: Float[Tensor, " b"]) -> Mixed:
    """What CutMix made of images with labels y, with these shares in the labels, not its own.

    `saliency` is the attention to the mixed images, a value for each patch.
    """
    assert pasted.pair is not None
    return replace(pasted, y=blend(y, pasted.pair, share), share=share,
                   saliency=enlarged(attention, pasted.x))


def shares(mask: Float[Tensor, "b 1 h w"], attention: Float[Tensor, "b 1 h2 w2"],
           area: float = 0.5, pooling: str = "nearest") -> Float[Tensor, " b"]:
    """Weight of each image's own label: area * (its area) + (1 - area) * (attention inside it)."""
    own = at_least_float32(mask).mean((1, 2, 3))
    return area * own + (1 - area) * share_of_attention(mask, attention, pooling)


def share_of_attention(mask: Float[Tensor, "b 1 h w"], attention: Float[Tensor, "b 1 h2 w2"],
                       pooling: str = "nearest") -> Float[Tensor, " b"]:
    """The part of the attention that is inside the mask, (B,): the paper's equation.

    pooling, of the mask to the grid of patches: "nearest" takes the first pixel of each patch, at
    its top left, "average" the mean of its pixels. Attention that is 0 everywhere counts as
    uniform.
    """
    if attention.ndim != 4 or attention.shape[:2] != (len(mask), 1):
        raise ValueError(f"attention must be of shape ({len(mask)}, 1, h, w), a value for each "
                         f"patch, not {tuple(attention.shape)}")
    if pooling not in ("nearest", "average"):
        raise ValueError(f"pooling is {pooling!r}; it must be 'nearest' or 'average'")
    h, w = attention.shape[2:]
    mask, attention = at_least_float32(mask), at_least_float32(attention)
    if pooling == "nearest":
        small = F.interpolate(mask, (h, w), mode="nearest")  # (B, 1, h, w)
    else:
        small = F.adaptive_avg_pool2d(mask, (h, w))          # (B, 1, h, w)
    total = attention.sum((1, 2, 3), keepdim=True)
    attention = torch.where(total > 0, attention, 1)
    return (small * attention).sum((1, 2, 3)) / attention.sum((1, 2, 3))


@dataclass(kw_only=True)
class TransMix(cutmix.CutMix):
    """CutMix's draws; a transformer's attention to the mixed images says what their labels are.

    area: weight of CutMix's share in the label, 0 for attention alone. pooling: of the mask to the
    patches, "nearest" or "average". A step has no further pass; `mix` makes one, without gradient.
    """

    NEEDS, LABEL = "attention", "attention and area"

    area: float = number(0.5, 0, 1)
    pooling: str = choice("nearest", "average")

    @property
    def needs_network(self) -> bool:
        return True

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        if net is None:
            raise ValueError("TransMix reads the network's attention: give it, mix(x, y, net)")
        pasted = super().mix(x, y)
        with evaluation_mode(net):
            attention = attention_of(net, pasted.x, "TransMix")
        return self._relabelled(pasted, y, attention)

    def loss(self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
             scaler: torch.amp.GradScaler | None = None) -> Float[Tensor, ""]:
        """The loss of one step: one pass over the mixed images gives logits and their labels."""
        pasted = super().mix(x, y)
        out, attention = output_and_attention(net, pasted.x, "TransMix")
        mixed = self._relabelled(pasted, y, attention)
        self.last = mixed
        return self.loss_of(out, mixed.y)

    def _relabelled(self, pasted, y, attention):
        share = self.arithmetic(shares)(pasted.mask, attention, self.area, self.pooling)
        return relabelled(pasted, y, attention, share)


build = TransMix
