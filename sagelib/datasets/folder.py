"""Any folder of images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, all of one size.

Every format that Pillow opens is read: PNG, JPEG, WebP, TIFF, GIF, BMP and others. Images become
8-bit RGB and are turned upright as their EXIF data say; see `read_image`. Hidden files and folders,
such as `.ipynb_checkpoints`, and what systems leave behind (`__MACOSX`, `Thumbs.db`) are passed
over; other files are named in a warning. The training set's mean and standard deviation normalise.
"""
from pathlib import Path

from ..data.dataset import Dataset, channel_mean_std
from ..data.image_folder import ImageFiles, class_names, directory, read
from ..data.images import read_image

__all__ = ["ImageFiles", "class_names", "load", "read", "read_image"]


def load(root: str | Path, background: str = "white") -> tuple[Dataset, Dataset]:
    """The training and test sets under `root`. ValueError names the file or folder that is wrong.

    background: the colour under transparent pixels, by name or as "#rrggbb".
    """
    root = directory(root)
    classes = class_names(root / "train")
    images, labels = read(root / "train", classes, background=background)
    mean, std = channel_mean_std(images)
    train = Dataset(images, labels, classes, mean, std)
    images, labels = read(root / "test", classes, images.shape[2:], background)
    return train, Dataset(images, labels, classes, mean, std)
