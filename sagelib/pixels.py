"""From normalised images to pixels and back, for data sets, attacks and methods that look at
colours."""
import torch


def per_channel_tensor(values, device):
    """One number, several, or a tensor of them -> float32 (C, 1, 1) or (1, 1, 1), to go with images
    (B, C, H, W)."""
    if isinstance(values, (int, float)):
        values = [values]
    if not isinstance(values, torch.Tensor):
        values = torch.stack([torch.full((), float(v), device=device) for v in values])
    return values.to(device, torch.float32).flatten()[:, None, None]


def to_pixels(x, mean, std):
    """Normalised images (B, C, H, W) back to [0, 1], float32; mean and std are numbers or one for
    each channel."""
    mean, std = per_channel_tensor(mean, x.device), per_channel_tensor(std, x.device)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, x.shape[1]):
            raise ValueError(f"{name} has {len(values)} numbers, the images {x.shape[1]} "
                             "channels: give one for each")
    return x.float() * std + mean


def from_pixels(p, mean, std):
    """Images (B, C, H, W) in [0, 1] normalised, float32: `to_pixels` backwards."""
    return (p.float() - per_channel_tensor(mean, p.device)) / per_channel_tensor(std, p.device)


def multiply_add(x, weight, z):
    """x * weight + z in float32, rounded once, for a weight that is rounded to float32 first: no
    float64 is needed.

    T. Dekker, "A floating-point technique for extending the available precision", 1971: the
    rounding errors of the product and of the sum are numbers too. Factors are split into halves of
    12 bits, whose products are exact.
    """
    weight = torch.full((), weight, device=x.device)
    (x1, x2), (w1, w2) = ((high := 4097 * v - (4097 * v - v), v - high) for v in (x, weight))
    product = x * weight
    lost = x2 * w2 - (((product - x1 * w1) - x2 * w1) - x1 * w2)  # product + lost is x * weight
    total = product + z
    part = total - product
    return total + (((product - (total - part)) + (z - part)) + lost)
