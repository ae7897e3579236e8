"""Controls for SAGE that are not in the paper: what is saliency worth?

https://arxiv.org/abs/2211.00113. Each differs from SAGE in one component. maps="uniform" takes
every pixel for equally salient, maps="other" gives each image the map of another image of the
batch, searched=False shifts each partner by one of the candidates, at random. The clean gradient is
reused all the same.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..method import Mixed, choice
from . import sage

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SETTINGS = sage.SETTINGS
mix = sage.mix


@dataclass(kw_only=True)
class SageControls(sage.Sage):
    """SAGE with one component replaced; without an option it is SAGE."""

    NEEDS = "gradient, a search"

    maps: str = choice("own", "uniform", "other")
    searched: bool = True

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        maps = {"own": s, "uniform": torch.ones_like(s), "other": s.roll(1, 0)}[self.maps]
        return replace(super().mix_with_saliency(x, y, maps), saliency=s)

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
