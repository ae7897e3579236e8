"""SaliencyMix: A. F. M. S. Uddin, M. S. Monira, W. Shin, T. Chung, S.-H. Bae, "SaliencyMix: A
Saliency Guided Data Augmentation Strategy for Better Regularization", ICLR 2021.
https://arxiv.org/abs/2006.01791

A box around the most salient point of the partner is pasted at the same place. The saliency is
OpenCV's "fine grained" detector (Montabone & Soto, 2010), reimplemented, equal to OpenCV's byte for
byte. Half of the batches are mixed.

The published code differs from the paper in two ways, which `published=True` repeats: one box, from
the first image's partner, serves the whole batch; and the detector is fed with normalised floats,
of which it reads single bytes as the centre pixels, so that its peak is nearly noise.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method import (
    Method,
    Mixed,
    SaliencyFn,
    check_saliency,
    checked_maps,
    choice,
    number,
    per_channel,
)
from ..pixels import to_pixels
from ..saliency import at_least_float32, mirrored
from . import cutmix

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num, UInt8

RADII = (12, 24, 48, 28, 56, 112)  # pixels: half sides of the six surrounds
# OpenCV's blue, green, red in 1/32768, for channels 0, 1, 2 as they come
GREY = (3735, 19235, 9798)
mix = cutmix.mix


def box(saliency_map: Num[Tensor, "*b h w"],
        lam: float | Float[Tensor, "*#b"]) -> Int[Tensor, "*b 4"]:
    """Top, left, bottom, right around the peak of one map, (4,), or of each, (B, 4).

    The sides are int(sqrt(1 - lam) * H) and W, made even, and clipped at the border. The first of
    equal peaks counts. lam: a number, then in float64, or a tensor in its own precision, at least
    float32: a side can then differ by a pixel where sqrt(1 - lam) is within 2e-7 of a whole number
    of pixels over H.
    """
    h, w = saliency_map.shape[-2:]
    flat = saliency_map.flatten(-2)
    places = torch.arange(h * w, device=flat.device)
    peak = torch.where(flat == flat.amax(-1, keepdim=True), places, h * w - 1).amin(-1)
    if isinstance(lam, numbers.Real):
        side = math.sqrt(min(max(float(1 - lam), 0), 1))
        tall, wide = int(side * h) // 2, int(side * w) // 2
    else:
        side = (1 - at_least_float32(torch.as_tensor(lam, device=flat.device))).clamp(0, 1).sqrt()
        tall, wide = (side * h).long() // 2, (side * w).long() // 2
    row, column = peak // w, peak % w
    top, bottom = (row - tall).clamp(0, h), (row + tall).clamp(0, h)
    left, right = (column - wide).clamp(0, w), (column + wide).clamp(0, w)
    return torch.stack([top, left, bottom, right], -1)


def fine_grained(images: UInt8[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
    """How much each pixel differs from its surrounds, bytes (B, 3, H, W) -> (B, H, W) in 0..255.

    Equal to cv2.saliency.StaticSaliencyFineGrained on the same bytes, byte for byte.
    """
    blue, green, red = images.long().unbind(1)
    grey = (GREY[0] * blue + GREY[1] * green + GREY[2] * red + (1 << 14)) >> 15  # (B, H, W)
    for _ in range(2):
        a, b, c = _neighbours(grey, 2)
        grey = a + 2 * b + c
        a, b, c = _neighbours(grey, 1)
        grey = (a + 2 * b + c + 8) >> 4
    return _centre_surround(grey, grey)


def fine_grained_of_floats(x: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
    """The same detector on float images, as published, (B, H, W): its centre "pixels" are bytes.

    The surrounds are those of the floats; the centre at row i, column j is byte j of row i's
    memory, so that only the bytes of a row's first quarter count.
    """
    grey = x[:, 1].float() * 0.587
    grey = multiply_add(x[:, 0].float(), 0.114, grey)  # OpenCV rounds once for both operations
    grey = multiply_add(x[:, 2].float(), 0.299, grey)
    for _ in range(2):
        for axis in (2, 1):
            a, b, c = _neighbours(grey, axis)
            grey = b * 0.5 + (a + c) * 0.25
    return _centre_surround(grey.contiguous().view(torch.uint8)[..., :x.shape[3]].long(), grey)


def multiply_add(x: Float[Tensor, "*shape"], weight: float,
                 z: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """x * weight + z in float32, rounded once; the weight is rounded to float32 first.

    T. Dekker, "A floating-point technique for extending the available precision", 1971: the
    rounding errors of the product and of the sum are numbers too. Factors are split into halves of
    12 bits, whose products are exact; no float64 is needed.
    """
    factor = torch.full((), weight, device=x.device)
    x1, w1 = (4097 * v - (4097 * v - v) for v in (x, factor))
    x2, w2 = x - x1, factor - w1
    product = x * factor
    lost = x2 * w2 - (((product - x1 * w1) - x2 * w1) - x1 * w2)  # product + lost is x * factor
    total = product + z
    part = total - product
    return total + (((product - (total - part)) + (z - part)) + lost)


@torch.library.custom_op("sagelib::opencv_saliency", mutates_args=(),
                         schema="(Tensor images) -> Tensor")
def opencv(images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
    """OpenCV's own detector on bytes or floats, (B, H, W), as the authors' code calls it.

    It runs on the CPU: on another device the step waits for it, which `fine_grained` does not.
    """
    try:
        import cv2
        # pyrefly: ignore[missing-attribute]: cv2's stubs lack it
        detect = cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency
    except (ImportError, AttributeError) as error:
        raise ImportError("detector='opencv' needs OpenCV with its contrib modules: pip install "
                          "'sagelib[saliencymix]'; detector='builtin' computes the same") from error
    maps = [detect(image.permute(1, 2, 0).contiguous().numpy())[1] for image in images.cpu()]
    levels = [torch.from_numpy((m * 255).astype("uint8")) for m in maps]
    return torch.stack(levels).long().to(images.device)  # (B, H, W)


@opencv.register_fake
def _(images):
    return images.new_empty((len(images), *images.shape[2:]), dtype=torch.int64)


def _three(x):
    """The first three channels (B, 3, H, W); a grey image counts as three equal ones."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)


def _neighbours(z, axis):
    """Before, itself, after: z (B, H, W) moved by one along an axis, the border mirrored."""
    n = z.shape[axis]
    wide = z.index_select(axis, mirrored(n, 1, z.device))
    return wide.narrow(axis, 0, n), z, wide.narrow(axis, 2, n)


def _centre_surround(centre, grey):
    """How far each centre is above, and below, the mean of its six surrounds, (B, H, W).

    Both are summed and scaled to 0..255.
    """
    h, w = grey.shape[1:]
    table = F.pad(grey.cumsum(1).cumsum(2), (1, 0, 1, 0))  # (B, H + 1, W + 1)
    rows, columns = (torch.arange(n, device=grey.device) for n in (h, w))
    on, off = torch.zeros_like(centre), torch.zeros_like(centre)
    for radius in RADII:
        top, bottom = (rows - radius + 1).clamp(0, h), (rows + radius + 1).clamp(0, h)
        left, right = (columns - radius + 1).clamp(0, w), (columns + radius + 1).clamp(0, w)
        wide = table[:, bottom] - table[:, top]
        inside = wide[:, :, right] - wide[:, :, left]
        area = (bottom - top)[:, None] * (right - left)
        mean = (inside - centre).float() / (area - 1).clamp(min=1)
        on += (centre - mean).clamp(0, 255).long()
        off += (mean - centre).clamp(0, 255).long()
    on, off = _to_bytes(on, on), _to_bytes(off, off)
    return _to_bytes(on + off, torch.maximum(on, off)) & 255


def _to_bytes(z, top):
    return (255.0 * (z.float() / top.amax((1, 2), keepdim=True).clamp(min=1))).long()


@dataclass(kw_only=True)
class SaliencyMix(Method):
    """Each partner's box at its own peak; area from Beta(alpha, alpha).

    A batch is mixed with probability `prob`. mean, std: of the normalised images, to get back to
    pixels. published: True is the published behaviour, a detector fed with floats, and one box for
    the whole batch, from the first image's partner. detector: our own or OpenCV's, which runs on
    the CPU; they agree. per_image: an area, and a decision to mix, for each image.
    """

    NEEDS, LABEL = "a detector on pixels", "area"

    alpha: float = number(1.0, 0, 100)
    prob: float = number(0.5, 0, 1)
    published: bool = False
    per_image: bool = False
    detector: str = choice("builtin", "opencv")
    mean: float | Sequence[float] = per_channel(0.0, -100)
    std: float | Sequence[float] = per_channel(1.0, 0)

    # as in SaliencyGuided: takes the place of the detector
    saliency_fn = cast("SaliencyFn | None", None)

    def check_options(self) -> None:
        if self.published and self.per_image:
            raise ValueError("SaliencyMix: published=True is one box for the whole batch; "
                             "per_image=True needs its own")

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        if self.saliency_fn is not None:
            return self.mix_with_saliency(x, y, checked_maps(self.saliency_fn, x))
        pair, lam, mixing = self._draw(x)
        if self.published:
            detect = opencv if self.detector == "opencv" else fine_grained_of_floats
            maps = detect(_three(x.detach()[pair[:1]].float()))[0]  # (H, W)
        else:
            detect = opencv if self.detector == "opencv" else fine_grained
            pixels = (to_pixels(x.detach(), self.mean, self.std) * 255).round().clamp(0, 255).byte()
            maps = detect(_three(pixels))[pair]  # (B, H, W)
        return mix(x, y, pair, torch.where(mixing, box(maps, lam), 0))

    def mix_with_saliency(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
                          s: Float[Tensor, "b 1 h w"]) -> Mixed:
        """As `mix`, with boxes at the peaks of maps s (B, 1, H, W) in place of the detector's."""
        check_saliency(s, x)
        pair, lam, mixing = self._draw(x)
        boxes = torch.where(mixing, box(s[pair, 0], lam), 0)
        return replace(mix(x, y, pair, boxes), saliency=s)

    def _draw(self, x):
        many = self._many(x)
        pair = self.draw_permutation(len(x), x.device)
        lam = self.draw_beta(self.alpha, x.device, *many)
        mixing = self.draw_uniform(0, 1, x.device, *many) < self.prob
        return pair, lam, mixing[..., None]


build = SaliencyMix
