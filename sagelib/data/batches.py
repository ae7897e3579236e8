"""Batches from a data set that lies on the device as bytes: crop, flip and normalise a whole batch
at once.

The crop is the paper's: zeros around the raw picture, 2 pixels each side, then a window of the old
size (the authors' code; the paper says only "random cropping").
"""
import torch
import torch.nn.functional as F

from ..losses import one_hot


class Batches:
    """Iterate once for an epoch: images (B, 3, H, W), normalised floats, and labels (B, K),
    one-hot.

    With `generator`, an epoch is a new random order, cropped (`padding` pixels) and flipped;
    without, the plain images in order, for evaluation. The last batch may be smaller.
    """

    def __init__(self, dataset, size=100, padding=2, flip=True, generator=None):
        if size < 1 or padding < 0:
            raise ValueError("a batch has at least 1 image and a padding of 0 or more, not "
                             f"{size} and {padding}")
        self.dataset, self.size, self.generator = dataset, size, generator
        self.padding, self.flip = padding, flip
        h, w = dataset.images.shape[2:]
        padded = F.pad(dataset.images,
                       (padding,) * 4) if generator is not None and padding else dataset.images
        # a view of all crops: (N, 3, tops, lefts, H, W)
        self._windows = padded.unfold(2, h, 1).unfold(3, w, 1)

    def __len__(self):
        return -(-len(self.dataset) // self.size)

    def __iter__(self):
        for index in self.order().split(self.size):
            yield self.take(index)

    def order(self):
        """The images of the next epoch, by number (N,): shuffled if the batches are random."""
        if self.generator is None:
            return torch.arange(len(self.dataset), device=self.dataset.labels.device)
        return self._draw(torch.randperm, len(self.dataset))

    def take(self, index):
        """The batch of these images (B,): images (B, 3, H, W) and labels (B, K). Nothing waits for
        the device."""
        images = self.dataset.images[index] if self.generator is None else self._augmented(index)
        return self.dataset.normalised(images), one_hot(
            self.dataset.labels[index], len(self.dataset.classes)
        )

    def _augmented(self, index):
        top, left = (self._draw(torch.randint, 2 * self.padding + 1, (len(index),))
                     for _ in range(2))
        images = self._windows[index, :, top, left]
        if self.flip:
            turned = self._draw(torch.rand, (len(index),)) < 0.5
            images = torch.where(turned[:, None, None, None], images.flip(3), images)
        return images

    def _draw(self, kind, *args):
        device = self.dataset.images.device
        return kind(*args, generator=self.generator, device=self.generator.device).to(device)
