"""GuidedMixup: M. Kang, S. Kim, "GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps",
AAAI 2023.

https://arxiv.org/abs/2306.16612. SAGE's closest relative since: partners are chosen so that their
salient regions conflict least, nothing is moved, and each pixel is shared in proportion to the two
saliencies: Equation 2 of SAGE.

Written from the paper: the authors' code (https://github.com/3neutronstar/GuidedMixup) is GPL-3.0,
and only a source of facts. As there, maps are blurred with 7 x 7, sigma 3, scaled to sum to 1,
compared by l2 distance, and paired along one greedy cycle; the label is the mean of the mask. The
difference: the pairing runs on the device.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..mask import mask
from ..method import Mixed, SaliencyGuided, blend, check_pairs, choice
from ..saliency import normalise, smooth

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GREY = (0.2989, 0.587, 0.114)  # red, green, blue
LARGEST = 128  # pixels: larger images are shrunk before their spectrum is taken


def mix(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"], s: Float[Tensor, "b 1 h w"],
        pair: Int[Tensor, " b"]) -> Mixed:
    """Images that share each pixel by saliency with their partner, labels by the mask's mean.

    s: saliency, smoothed; pair: `pairing(s)` is the method's.
    """
    check_pairs(x, y, pair, s)
    s = normalise(s)
    m = torch.where(s + s[pair] > 0, mask(s, s[pair]), 0.5)  # (B, 1, H, W)
    share = m.mean((1, 2, 3))
    return Mixed(blend(x, pair, m), blend(y, pair, share), mask=m, share=share, pair=pair)


def pairing(s: Float[Tensor, "b 1 h w"]) -> Int[Tensor, " b"]:
    """A partner for each image, (B,), whose saliency is elsewhere: one cycle through the batch.

    It starts with the two images that are farthest apart (l2 distance of the normalised maps) and
    goes on to the farthest image not yet in the cycle; the last one closes it.
    """
    flat = normalise(s).flatten(1)
    n = len(flat)
    if n == 1:
        return torch.zeros(1, dtype=torch.long, device=s.device)
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    place = torch.arange(n, device=s.device)
    apart = apart.masked_fill(place[:, None] == place, -torch.inf)
    first = apart.flatten().argmax().reshape(1) // n
    pair, at, done = torch.zeros_like(place), first, place == first
    for _ in range(n - 1):
        following = apart.index_select(0, at)[0].masked_fill(done, -torch.inf).argmax().reshape(1)
        pair = torch.where(place == at, following, pair)
        at, done = following, done | (place == following)
    return torch.where(place == at, first, pair)


def spectral_residual(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Saliency (B, 1, H, W) without a network: what differs from a smooth log spectrum.

    Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007.
    """
    x = x.detach().float()
    if x.shape[1] == 3:
        red, green, blue = x.split(1, 1)
        grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue  # (B, 1, H, W)
    else:
        grey = x.mean(1, keepdim=True)
    size = grey.shape[2:]
    small = [min(n, LARGEST) for n in size]
    if small != list(size):
        grey = F.interpolate(grey, small, mode="area")
    spectrum = torch.fft.fft2(grey)
    size_of = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
    log = size_of.log()
    residual = log - F.avg_pool2d(F.pad(log, (1, 1, 1, 1), mode="replicate"), 3, 1)
    s = torch.fft.ifft2(spectrum / size_of * residual.exp()).abs()
    return F.interpolate(s, size, mode="bilinear") if small != list(size) else s


@dataclass(kw_only=True)
class GuidedMixup(SaliencyGuided):
    """Every batch mixed, by saliency from a spectrum or from the network.

    source: "spectral" is the paper's Guided-SR, which needs no network; "gradient" its Guided-AP,
    which takes the gradient from an extra pass in evaluation mode.
    """

    NEEDS, LABEL = "a spectrum, a pairing", "mean of the mask"

    source: str = choice("spectral", "gradient")

    def units(self) -> int:
        return 5 if self.source == "gradient" else 3

    @property
    def needs_network(self) -> bool:
        return super().needs_network and self.source == "gradient"

    def compute_saliency(self, net: nn.Module | None, x: Float[Tensor, "b c h w"],
                         y: Float[Tensor, "b k"],
                         training: bool = False) -> Float[Tensor, "b 1 h w"]:
        if self.source == "spectral" and self.saliency_fn is None:
            return spectral_residual(x)
        return super().compute_saliency(net, x, y, training)

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        smoothed = smooth(s, 3.0, radius=3)
        return replace(mix(x, y, smoothed, pairing(smoothed)), saliency=s)


build = GuidedMixup
