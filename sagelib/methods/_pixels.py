"""From normalised images to pixels and back, for methods that look at colours. No difference from what data sets do."""
from .._constants import by_channel


def to_pixels(x, mean, std):
    """Normalised images (B, C, H, W) back to [0, 1], float32; mean and std are numbers or one for each channel."""
    mean, std = by_channel(mean, x.device), by_channel(std, x.device)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, x.shape[1]):
            raise ValueError(f"{name} has {len(values)} numbers, the images {x.shape[1]} channels: give one for each")
    return x.float() * std + mean


def from_pixels(p, mean, std):
    """Images (B, C, H, W) in [0, 1] normalised, float32: `to_pixels` backwards."""
    return (p.float() - by_channel(mean, p.device)) / by_channel(std, p.device)
