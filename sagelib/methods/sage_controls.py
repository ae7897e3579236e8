"""SAGE with one component replaced: controls that are not in the paper, readings of an ablation.

https://arxiv.org/abs/2211.00113. Each option differs from SAGE in one component. The controls ask
what saliency is worth: maps="uniform" takes every pixel for equally salient, maps="other" gives
each image the map of another image of the batch, searched=False shifts each partner by one of the
candidates, at random, and gradient_of="score" takes the saliency of the class score (Simonyan et
al. 2014) where the paper takes that of the loss. The clean gradient, which is the loss's, is reused
all the same.

The readings are of "SAGE without saliency-guided mixup", section 4.4, which has no code. The paper
says that components are "removed or replaced by an existing technique", and that this one "simply
replaces one image region with the other image instead of performing smooth saliency-based mixing".
Which region, it does not say. `guided=False` of SAGE pastes the shifted partner whole. Here are
three more, with the same draws and the same shift:

- mixing="rounded": the mask of Equation 2 rounded to 0 or 1, so that the region is where the
  partner is more salient;
- mixing="box": a box of the partner, around its most salient pixel, of the area that lambda leaves
  it, 1 - lambda, and shifted with it. SaliencyMix, whose box this is, is the existing technique
  that replaces a region of one image by another image and knows saliency maps. A box at a random
  place, as CutMix has it, would be a second removal: it undoes the search, which chose the shift
  for the partner's salient pixels. And it would need a further draw, while all readings share
  SAGE's;
- mixing="uniform": Mixup of the image and the shifted partner, with lambda at every pixel. It
  replaces no region, but it is the technique that saliency-guided mixup was made from.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..losses import class_score, logits_of
from ..mask import mask
from ..method import Mixed, as_column, choice
from ..rearrange import best_offset, shift
from ..saliency import smooth
from ..stored_grad import loss_with_stored_grad
from . import sage
from .cutmix import outside
from .saliencymix import box

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SETTINGS = sage.SETTINGS


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
        pair: Int[Tensor, " b"], lam: float | Float[Tensor, ""] | Float[Tensor, " b"],
        tau: Int[Tensor, "... n 2"], mixing: str = "guided", sigma: float = 0.0) -> Mixed:
    """`sage.mix` with another mask at the same shift: "guided", "rounded", "box" or "uniform".

    sigma: of the Gaussian that smooths s first, pixels. The label's share is the mean of the mask.
    What a shift uncovers is the image's own, but with "uniform", which fades it there to black.
    """
    s = smooth(s, sigma)                                    # (B, 1, H, W)
    a, b = sage.weighted(x, y, s, pair, lam)                # (B, 1, H, W) each
    best = best_offset(a, b, tau)                           # (B, 2)
    m = mask_of(mixing, a, b, as_column(lam, x), best)      # (B, 1, H, W)
    return sage.mix_by_mask(x, y, m, pair, best)


def mask_of(mixing: str, a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"],
            lam: Float[Tensor, "b 1 1 1"], best: Int[Tensor, "b 2"]) -> Float[Tensor, "b 1 h w"]:
    """The image's share of each pixel, (B, 1, H, W), by a reading of "without guided mixup".

    a, b: the weighted maps of the images and of their partners; best: each partner's shift. A tie
    of "rounded" is the partner's, as a pixel without saliency is in Equation 2. Of equal peaks of
    "box" the first counts, row by row; its sides are even.
    """
    if mixing == "uniform":
        return lam.to(a.dtype).expand_as(a)
    if mixing == "box":
        inside = ~outside(box(b[:, 0], lam[:, 0, 0, 0]), *b.shape[2:])   # (B, 1, H, W)
        return 1 - shift(inside.to(b.dtype), best)
    m = mask(a, shift(b, best))
    return (m > 0.5).to(m.dtype) if mixing == "rounded" else m


@dataclass(kw_only=True)
class SageControls(sage.Sage):
    """SAGE with one component replaced; without an option it is SAGE.

    maps: whose saliency maps; searched: whether the shift is the best of the candidates or one at
    random; mixing: the mask, see above; gradient_of: what the saliency is the gradient of. With
    "score" the step's clean pass has two backward passes: to the images from the label's score, to
    the weights from the loss.
    """

    NEEDS = "gradient, a search"

    maps: str = choice("own", "uniform", "other")
    searched: bool = True
    mixing: str = choice("guided", "rounded", "box", "uniform", later=True)
    gradient_of: str = choice("loss", "score", later=True)

    def check_options(self) -> None:
        if self.mixing != "guided" and not self.guided:
            raise ValueError(f"SageControls: guided=False pastes the whole partner, so mixing must "
                             f"be 'guided', not {self.mixing!r}: give one of the two")

    def units(self) -> int:
        # reused: the loss's way back to the weights passes all layers once more
        return super().units() + (self.gradient_of == "score" and self.reuse > 0)

    def saliency_loss(self, out: Any, y: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        if self.gradient_of == "loss":
            return super().saliency_loss(out, y)
        # a mean, as large as the loss: float16 would not hold the sum times a loop's scale
        return class_score(logits_of(out, y.shape[1]), y) / y.numel()

    def clean_pass(
        self, net: nn.Module, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
        scaler: torch.amp.GradScaler | None = None, reused: bool = True,
    ) -> tuple[Float[Tensor, ""] | float, Float[Tensor, "b 1 h w"]]:
        if self.gradient_of == "loss" or not reused:
            return super().clean_pass(net, x, y, scaler, reused)
        of = None if self.saliency_fn else lambda out: self.saliency_loss(out, y)
        with self.saliency_pass_mode(net, training=True):
            clean, grad = loss_with_stored_grad(
                net, x, lambda out: self.loss_of(out, y), scaler, of)
        if self.saliency_fn is not None:
            return clean, self.compute_saliency(net, x, y)
        return clean, self.saliency_from_grad(grad)

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        maps = {"own": s, "uniform": torch.ones_like(s), "other": s.roll(1, 0)}[self.maps]
        if self.mixing == "guided":
            return replace(super().mix_with_saliency(x, y, maps), saliency=s)
        pair, lam, tau = self.draws(x)
        mixed = self.arithmetic(mix)(x, y, maps, pair, lam, tau, self.mixing, self.sigma)
        return replace(mixed, saliency=s)

    def draws(
        self, x: Float[Tensor, "b c h w"],
    ) -> tuple[Int[Tensor, " b"], Float[Tensor, "*lam"], Int[Tensor, "... n 2"]]:
        pair, lam, tau = super().draws(x)
        if not self.searched:  # one of the candidates is left for each image
            n = len(x)
            which = self.draw_integers(tau.shape[-2], x.device, n)
            tau = tau.expand(n, -1, -1)[torch.arange(n, device=x.device), which]
            tau = tau[:, None]  # (B, 1, 2)
        return pair, lam, tau


build = SageControls
