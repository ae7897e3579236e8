"""Controls for SAGE (https://arxiv.org/abs/2211.00113) that are not in the paper: what is saliency
worth?

Each differs from SAGE in one component. maps="uniform" takes every pixel for equally salient,
maps="other" gives each image the map of another image of the batch, searched=False shifts each
partner by one of the candidates, at random. The clean gradient is reused all the same.
"""
from dataclasses import dataclass, replace

import torch

from ..method import choice
from . import sage

SETTINGS = sage.SETTINGS
mix = sage.mix


@dataclass(kw_only=True)
class SageControls(sage.Sage):
    """SAGE with one component replaced; without an option it is SAGE."""

    NEEDS = "gradient, a search"

    maps: str = choice("own", "uniform", "other")
    searched: bool = True

    def mix_with_saliency(self, x, y, s):
        maps = {"own": s, "uniform": torch.ones_like(s), "other": s.roll(1, 0)}[self.maps]
        return replace(super().mix_with_saliency(x, y, maps), saliency=s)

    def draws(self, x):
        pair, lam, tau = super().draws(x)
        if not self.searched:  # one of the candidates is left for each image
            place = dict(generator=self.generator, device=self._place(x.device))
            which = torch.randint(tau.shape[-2], (len(x),), **place).to(x.device)
            # (B, 1, 2)
            tau = tau.expand(len(x), -1, -1)[torch.arange(len(x), device=x.device), which][:, None]
        return pair, lam, tau


build = SageControls
