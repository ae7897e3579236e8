"""The 15 common corruptions at 5 severities, for whole batches on the device.

D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, https://arxiv.org/abs/1903.12261. Kinds and severities are those of their CIFAR-10-C; they are stated for images
of 32 x 32 and used as they are for others, except elastic_transform and the fractal of fog, which grow with the image.
Differences: random parts are drawn anew, so images differ from the published files (which `published` reads); frost
has no photographs of ice here but grows crystals from noise; JPEG is computed as blocks of cosines without the file.
"""
from pathlib import Path

import numpy as np
import torch

from . import _blurs, _weather

SEVERITIES = range(1, 6)
TABLE = {  # the five severities of each kind
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
             (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
NAMES = tuple(TABLE)


def corrupt(images, name, severity, generator):
    """Images uint8 (B, 3, H, W) with one corruption, uint8; `generator` on their device gives its random part."""
    if name not in TABLE:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(NAMES)}")
    _check_severity(severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"corruptions take images uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
    level = TABLE[name][severity - 1]
    changed = _FUNCTIONS[name](images.float() / 255, *(level if isinstance(level, tuple) else (level,)), generator)
    return (changed.clamp(0, 1) * 255).byte()  # cut, not rounded, as in the published images


def _check_severity(severity):
    if not isinstance(severity, int) or severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}; it is 1, 2, 3, 4 or 5")


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


def brightness(x, more, generator):
    """The value of HSV raised: the largest channel by `more`, up to 1, and the others in proportion."""
    top = x.amax(1, keepdim=True)
    raised = (top + more).clamp(0, 1)
    return torch.where(top > 0, x * (raised / top.clamp(min=1e-12)), raised)


def contrast(x, factor, generator):
    """Each channel drawn towards its mean over the image."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


_FUNCTIONS = {
    **{f.__name__: f for f in (gaussian_noise, shot_noise, impulse_noise, brightness, contrast)},
    **{f.__name__: f for f in (_blurs.defocus_blur, _blurs.glass_blur, _blurs.motion_blur, _blurs.zoom_blur,
                               _blurs.elastic_transform, _blurs.pixelate)},
    **{f.__name__: f for f in (_weather.snow, _weather.frost, _weather.fog, _weather.jpeg_compression)},
}


def published(root, test):
    """A function (name, severity) -> images uint8 (N, 3, H, W), labels (N,): published corruptions.

    root: the folder of CIFAR-10-C or CIFAR-100-C, unpacked: NAME.npy and labels.npy, one severity
    after the other. test: the `Dataset` they were made from, all of it, in any order. ValueError if
    they were made from another one: compared are the number of classes, the number of images of
    each class, and the images and labels of jpeg_compression at severity 1.
    """
    labels = _labels(Path(root) / "labels.npy", test)

    def read(name, severity):
        _check_severity(severity)
        file = Path(root) / f"{name}.npy"
        images, shape = _array(file), (5 * len(test), *test.images.shape[2:], 3)
        if images.dtype != np.uint8 or images.shape != shape:
            raise ValueError(f"{file} has {images.dtype} {images.shape}; of this test set it has "
                             f"uint8 {shape}, {len(test)} images for each severity")
        part = images[(severity - 1) * len(test):severity * len(test)].copy()  # (N, H, W, 3)
        return torch.from_numpy(part).permute(0, 3, 1, 2), labels[(severity - 1) % len(labels)]

    _check_same_images(root, *read("jpeg_compression", 1), test)
    return read


def _labels(file, test):
    """int64 (1 or 5, N): the labels of all severities, or of each."""
    labels, classes = _array(file), len(test.classes)
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(test),), (5 * len(test),)):
        raise ValueError(f"{file} has {labels.dtype} {labels.shape}; of this test set it has "
                         f"{len(test)} class indices, or 5 times as many")
    if labels.max() + 1 != classes or labels.min() < 0:
        raise ValueError(f"{file} has class indices from {labels.min()} to {labels.max()}, this "
                         f"test set has {classes} classes; is it the folder of another data set?")
    labels = torch.from_numpy(labels.astype("int64")).reshape(-1, len(test))
    counts = test.labels.cpu().bincount(minlength=classes)
    if any(not torch.equal(part.bincount(minlength=classes), counts) for part in labels):
        raise ValueError(f"{file} has another number of images of some class than this test set; "
                         "is it the folder of another data set?")
    return labels


def _array(file):
    if not file.exists():
        raise FileNotFoundError(f"there is no {file}; root is the folder of CIFAR-10-C or "
                                "CIFAR-100-C, unpacked")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} cannot be read ({error}): download it again") from error


def _check_same_images(root, images, labels, test, some=100, nearer=0.8):
    """Refuses JPEG images (N, 3, H, W) that are not of a test set, or that it labels otherwise.

    An image counts as found if the nearest one in the test set is less than `nearer` times as far
    as the second nearest. Measured with Pillow's JPEG at quality 80: all images of CIFAR-10 and
    CIFAR-100 are found in their own test set, 0 to 2 % in that of the other or among the images of
    the training set, and 59 to 69 % with red and blue exchanged.
    """
    picked = torch.linspace(0, len(images) - 1, min(some, len(images))).long()
    x = images[picked].to(test.images.device).flatten(1).float()
    parts = test.images.split(2000)
    away = torch.cat([torch.cdist(x, part.flatten(1).float()) for part in parts], 1)
    (first, second), (which, _) = (best.T for best in away.topk(2, largest=False))
    found = (first < nearer * second).cpu()
    if found.float().mean() < 0.9:
        raise ValueError(f"{root} was made from other images than this test set: of {len(picked)} "
                         f"images of jpeg_compression, severity 1, it has {int(found.sum())}")
    same = found & (test.labels[which].cpu() == labels[picked])
    if same.float().mean() < 0.9:
        raise ValueError(f"{root} has other labels than this test set: of {len(picked)} images of "
                         f"jpeg_compression, severity 1, {int(same.sum())} have the same in both")
