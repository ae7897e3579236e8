"""Weather: snow, frost, fog and brightness; images float (B, 3, H, W) in [0, 1]. Severities:
`__init__.py`."""
import math

import torch

from .blur import motion_blur, zoom


def snow(x, mean, std, magnify, threshold, radius, sigma, keep, generator):
    """Flakes: noise above a threshold, magnified, streaked, laid over a paler image twice, once
    upside down."""
    b, _, h, w = x.shape
    flakes = mean + std * torch.randn(b, 1, h, w, generator=generator, device=x.device)
    flakes = zoom(flakes, magnify)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    # it falls
    flakes = motion_blur(flakes.transpose(2, 3), radius, sigma, generator).transpose(2, 3)
    grey = (x * _grey(x)).sum(1, keepdim=True)
    pale = keep * x + (1 - keep) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + flakes + flakes.flip(2, 3)


def frost(x, keep, ice, generator):
    """Ice over the image: branching crystals where cloudy noise crosses zero, brighter where it is
    thick."""
    clouds = fractal(x, 2.2, generator) - 0.5
    veins = (1 - (clouds.abs() * 12).clamp(max=1)) + 0.6 * fractal(x, 1.6, generator)
    tint = torch.stack([torch.full((), v, device=x.device) for v in (0.85, 0.95, 1.0)])[
        :, None, None
    ]
    return keep * x + ice * veins.clamp(0, 1) * tint


def fog(x, thickness, decay, generator):
    """A cloud added, and the whole made as bright as before."""
    top = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * fractal(x, decay, generator)) * top / (top + thickness)


def fractal(x, decay, generator):
    """Diamond-square clouds (B, 1, H, W) in [0, 1]; each finer level of detail is `decay` times
    weaker."""
    b, _, h, w = x.shape
    size = 1 << max(3, math.ceil(math.log2(max(h, w))))
    z = torch.zeros(b, 1, size, size, device=x.device)
    step, wibble = size, 100.0

    def around(mean):
        return mean + wibble * (2 * torch.rand(mean.shape, generator=generator, device=x.device) -
                                1)

    while step >= 2:
        half = step // 2
        corner = z[:, :, ::step, ::step]
        rows = corner + corner.roll(-1, 2)
        z[:, :, half::step, half::step] = around((rows + rows.roll(-1, 3)) / 4)  # squares
        centre = z[:, :, half::step, half::step]
        z[:, :, ::step, half::step] = around(
            (centre + centre.roll(1, 2) + corner + corner.roll(-1, 3)) / 4)
        z[:, :, half::step, ::step] = around(
            (centre + centre.roll(1, 3) + corner + corner.roll(-1, 2)) / 4)
        step, wibble = half, wibble / decay
    z = z - z.amin((2, 3), keepdim=True)
    return (z / z.amax((2, 3), keepdim=True).clamp(min=1e-12))[:, :, :h, :w]


def _grey(x):
    return torch.stack([torch.full((), v, device=x.device) for v in (0.299, 0.587, 0.114)])[
        :, None, None
    ]


def brightness(x, more, generator):
    """The value of HSV raised: the largest channel by `more`, up to 1, and the others in
    proportion."""
    top = x.amax(1, keepdim=True)
    raised = (top + more).clamp(0, 1)
    return torch.where(top > 0, x * (raised / top.clamp(min=1e-12)), raised)
