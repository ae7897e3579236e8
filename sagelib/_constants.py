"""Numbers of a data set or a method as tensors, made on the device: a copy from the host would wait for it."""
import torch


def by_channel(values, device):
    """One number, several, or a tensor of them -> float32 (C, 1, 1) or (1, 1, 1), to go with images (B, C, H, W)."""
    if isinstance(values, (int, float)):
        values = [values]
    if not isinstance(values, torch.Tensor):
        values = torch.stack([torch.full((), float(v), device=device) for v in values])
    return values.to(device, torch.float32).flatten()[:, None, None]
