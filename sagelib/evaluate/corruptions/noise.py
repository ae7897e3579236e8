"""Noise: gaussian, shot and impulse; images float (B, 3, H, W) in [0, 1]. Severities and source:
`__init__.py`."""
import torch


def gaussian_noise(x, sigma, generator):
    """A normal draw of standard deviation sigma added to each value."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


def shot_noise(x, photons, generator):
    """Each value counted in photons, of which white has so many: a Poisson draw."""
    return torch.poisson(x * photons, generator=generator) / photons


def impulse_noise(x, amount, generator):
    """Salt and pepper: each value is 0 or 1 with a chance of `amount`, evenly."""
    u = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.where(u < amount / 2, 0.0, torch.where(u < amount, 1.0, x))
