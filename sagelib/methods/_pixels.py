"""From normalised images to pixels and back, for methods that look at colours. No difference from what data sets do."""
from .._constants import by_channel


def to_pixels(x, mean, std):
    """Normalised images (B, C, H, W) back to [0, 1], float32; mean and std are numbers or one for each channel."""
    return x.float() * by_channel(std, x.device) + by_channel(mean, x.device)


def from_pixels(p, mean, std):
    """Images (B, C, H, W) in [0, 1] normalised, float32: `to_pixels` backwards."""
    return (p.float() - by_channel(mean, p.device)) / by_channel(std, p.device)
