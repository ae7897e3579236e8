"""Snow, frost, fog and JPEG; images float (B, 3, H, W) in [0, 1]. Severities: corruptions.py."""
import math

import torch
import torch.nn.functional as F

from ._blurs import motion_blur, zoom

LUMA = ((16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99))
CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # 99 everywhere else


def snow(x, mean, std, magnify, threshold, radius, sigma, keep, generator):
    """Flakes: noise above a threshold, magnified, streaked, laid over a paler image twice, once upside down."""
    b, _, h, w = x.shape
    flakes = mean + std * torch.randn(b, 1, h, w, generator=generator, device=x.device)
    flakes = zoom(flakes, magnify)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    flakes = motion_blur(flakes.transpose(2, 3), radius, sigma, generator).transpose(2, 3)  # it falls
    grey = (x * _grey(x)).sum(1, keepdim=True)
    pale = keep * x + (1 - keep) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + flakes + flakes.flip(2, 3)


def frost(x, keep, ice, generator):
    """Ice over the image: branching crystals where cloudy noise crosses zero, brighter where it is thick."""
    clouds = fractal(x, 2.2, generator) - 0.5
    veins = (1 - (clouds.abs() * 12).clamp(max=1)) + 0.6 * fractal(x, 1.6, generator)
    tint = torch.stack([torch.full((), v, device=x.device) for v in (0.85, 0.95, 1.0)])[:, None, None]
    return keep * x + ice * veins.clamp(0, 1) * tint


def fog(x, thickness, decay, generator):
    """A cloud added, and the whole made as bright as before."""
    top = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * fractal(x, decay, generator)) * top / (top + thickness)


def fractal(x, decay, generator):
    """Diamond-square clouds (B, 1, H, W) in [0, 1]; each finer level of detail is `decay` times weaker."""
    b, _, h, w = x.shape
    size = 1 << max(3, math.ceil(math.log2(max(h, w))))
    z = torch.zeros(b, 1, size, size, device=x.device)
    step, wibble = size, 100.0

    def around(mean):
        return mean + wibble * (2 * torch.rand(mean.shape, generator=generator, device=x.device) - 1)

    while step >= 2:
        half = step // 2
        corner = z[:, :, ::step, ::step]
        rows = corner + corner.roll(-1, 2)
        z[:, :, half::step, half::step] = around((rows + rows.roll(-1, 3)) / 4)  # squares
        centre = z[:, :, half::step, half::step]
        z[:, :, ::step, half::step] = around((centre + centre.roll(1, 2) + corner + corner.roll(-1, 3)) / 4)
        z[:, :, half::step, ::step] = around((centre + centre.roll(1, 3) + corner + corner.roll(-1, 2)) / 4)
        step, wibble = half, wibble / decay
    z = z - z.amin((2, 3), keepdim=True)
    return (z / z.amax((2, 3), keepdim=True).clamp(min=1e-12))[:, :, :h, :w]


def jpeg_compression(x, quality, generator):
    """What JPEG at this quality leaves: colours at half size, blocks of 8 x 8 in rounded cosines. Nothing is random."""
    h, w = x.shape[2:]
    rgb = F.pad((x * 255).round(), (0, -w % 16, 0, -h % 16), mode="replicate")
    y, cb, cr = _luma_chroma(rgb)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    y = _through_cosines(y, _quantised(LUMA, scale, x.device))
    table = torch.full((8, 8), 99.0)
    table[:4, :4] = torch.tensor(CHROMA, dtype=torch.float32)
    half = _quantised(table.tolist(), scale, x.device)
    cb, cr = (_through_cosines(F.avg_pool2d(c, 2).round(), half) for c in (cb, cr))
    cb, cr = (F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False) - 128 for c in (cb, cr))
    out = torch.cat([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return out.round()[:, :, :h, :w] / 255


def _luma_chroma(rgb):
    r, g, b = rgb.split(1, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y.round(), ((b - y) / 1.772 + 128).round(), ((r - y) / 1.402 + 128).round()


def _quantised(table, scale, device):
    table = torch.tensor(table, dtype=torch.float32, device=device)
    return ((table * scale + 50) / 100).floor().clamp(1, 255)


def _through_cosines(z, table):
    """Bytes (B, 1, H, W), sides multiples of 8, to cosine coefficients, rounded to multiples of `table`, and back."""
    b, _, h, w = z.shape
    k = torch.arange(8.0, device=z.device)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    blocks = (z - 128).reshape(b, h // 8, 8, w // 8, 8).transpose(2, 3)
    coefficients = ((basis @ blocks @ basis.T) / table).round() * table
    blocks = (basis.T @ coefficients @ basis).transpose(2, 3).reshape(b, 1, h, w)
    return (blocks + 128).round().clamp(0, 255)


def _grey(x):
    return torch.stack([torch.full((), v, device=x.device) for v in (0.299, 0.587, 0.114)])[:, None, None]
