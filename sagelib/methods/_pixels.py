"""From normalised images to pixels and back, for methods that look at colours. No difference from what data sets do."""
import torch


def to_pixels(x, mean, std):
    """Normalised images (B, C, H, W) back to [0, 1], float32; mean and std are numbers or one for each channel."""
    return x.float() * _constants(std, x.device) + _constants(mean, x.device)


def from_pixels(p, mean, std):
    """Images (B, C, H, W) in [0, 1] normalised, float32: `to_pixels` backwards."""
    return (p.float() - _constants(mean, p.device)) / _constants(std, p.device)


def _constants(values, device):
    if isinstance(values, (int, float)):
        values = [values]
    if isinstance(values, (tuple, list)):  # made on the device: a copy from the host would wait for it
        values = torch.stack([torch.full((), float(v), device=device) for v in values])
    return torch.as_tensor(values, dtype=torch.float32, device=device).flatten()[:, None, None]
