"""GuidedMixup: M. Kang, S. Kim, "GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps",
AAAI 2023.

https://arxiv.org/abs/2306.16612. SAGE's closest relative since: partners are chosen so that their
salient regions conflict least, nothing is moved, and each pixel is shared in proportion to the two
saliencies: Equation 2 of SAGE.

As in the authors' code (https://github.com/3neutronstar/GuidedMixup): maps blurred with 7 x 7,
sigma 3, scaled to sum to 1, compared by l2 distance, paired along one greedy cycle; the label is
the mean of the mask. It differs in where the pairing runs: on the device.
"""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..mask import mask
from ..method import Mixed, SaliencyGuided, blend, check_pairs, check_saliency, choice
from ..saliency import normalise, smooth

GREY = (0.2989, 0.587, 0.114)  # red, green, blue
LARGEST = 128  # pixels: larger images are shrunk before their spectrum is taken


def mix(x, y, s, pair):
    """Share each pixel with the partner in proportion to saliency, the label by the mean of the
    mask.

    x (B, C, H, W), y (B, K), s (B, 1, H, W) saliency, smoothed, pair (B,) integers: `pairing(s)` is
    the method's.
    """
    check_pairs(x, y, pair)
    check_saliency(s, x)
    s = normalise(s)
    m = torch.where(s + s[pair] > 0, mask(s, s[pair]), 0.5)
    share = m.mean((1, 2, 3))
    picture, label = blend(x, y, pair, m, share)
    return Mixed(picture, label, mask=m, share=share, pair=pair)


def pairing(s):
    """A partner for each image whose saliency lies elsewhere, (B,): one cycle through the batch.

    s (B, 1, H, W). It starts with the two images that are farthest apart (l2 distance of the
    normalised maps) and goes on to the farthest image not yet in the cycle; the last one closes it.
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


def spectral_residual(x):
    """Saliency of images (B, C, H, W) without a network, (B, 1, H, W): what stands out of a smooth
    log spectrum.

    Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007.
    """
    x = x.detach().float()
    grey = sum(w * x[:, c:c + 1]
               for c, w in enumerate(GREY)) if x.shape[1] == 3 else x.mean(1, keepdim=True)
    size = grey.shape[2:]
    small = [min(n, LARGEST) for n in size]
    if small != list(size):
        grey = F.interpolate(grey, small, mode="area")
    spectrum = torch.fft.fft2(grey)
    size_of = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
    residual = size_of.log() - F.avg_pool2d(F.pad(size_of.log(),
                                                  (1, 1, 1, 1), mode="replicate"), 3, 1)
    s = torch.fft.ifft2(spectrum / size_of * residual.exp()).abs()
    return F.interpolate(s, size, mode="bilinear") if small != list(size) else s


@dataclass(kw_only=True)
class GuidedMixup(SaliencyGuided):
    """Every batch mixed. source: "spectral" is the paper's Guided-SR, which needs no network;
    "gradient" its Guided-AP, which takes the gradient of a pass of its own in evaluation mode."""

    NEEDS, LABEL = "a spectrum, a pairing", "mean of the mask"

    source: str = choice("spectral", "gradient")

    def units(self):
        return 5 if self.source == "gradient" else 3

    @property
    def needs_network(self):
        return super().needs_network and self.source == "gradient"

    def compute_saliency(self, net, x, y, training=False):
        if self.source == "spectral" and self.saliency_fn is None:
            return spectral_residual(x)
        return super().compute_saliency(net, x, y, training)

    def mix_with_saliency(self, x, y, s):
        smoothed = smooth(s, 3.0, radius=3)
        return replace(mix(x, y, smoothed, pairing(smoothed)), saliency=s)


build = GuidedMixup
