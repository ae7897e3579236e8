"""Batches from a data set that lies on the device as bytes: crop, flip and normalise a whole batch at once.

The crop is the paper's: zeros around the raw picture, 2 pixels each side, then a window of the old size
(the authors' code; the paper says only "random cropping").
"""
import torch
import torch.nn.functional as F

from .methods._method import one_hot


class Batches:
    """Iterate once for an epoch: images (B, 3, H, W), normalised floats, and labels (B, K), one-hot.

    With `generator`, an epoch is a new random order, cropped (`padding` pixels) and flipped; without,
    the plain images in order, for evaluation. The last batch may be smaller.
    """

    def __init__(self, dataset, size=100, padding=2, flip=True, generator=None):
        if size < 1 or padding < 0:
            raise ValueError(f"a batch has at least 1 image and a padding of 0 or more, not {size} and {padding}")
        self.dataset, self.size, self.padding, self.flip, self.generator = dataset, size, padding, flip, generator
        self._padded = F.pad(dataset.images, (padding,) * 4) if generator is not None and padding else dataset.images
        self._channels = torch.arange(3, device=dataset.images.device)[:, None, None]

    def __len__(self):
        return -(-len(self.dataset) // self.size)

    def __iter__(self):
        if self.generator is None:
            order = torch.arange(len(self.dataset), device=self.dataset.labels.device)
        else:
            order = self._draw(torch.randperm, len(self.dataset))
        for index in order.split(self.size):
            images = self.dataset.images[index] if self.generator is None else self._augmented(index)
            yield self.dataset.normalised(images), one_hot(self.dataset.labels[index], len(self.dataset.classes))

    def _augmented(self, index):
        h, w = self.dataset.images.shape[2:]
        top, left = (self._draw(torch.randint, 2 * self.padding + 1, (len(index), 1)) for _ in range(2))
        rows, columns = top + self._range(h), left + self._range(w)
        if self.flip:
            turned = self._draw(torch.rand, (len(index), 1)) < 0.5
            columns = torch.where(turned, columns.flip(1), columns)
        return self._padded[index[:, None, None, None], self._channels, rows[:, None, :, None],
                            columns[:, None, None, :]]

    def _range(self, n):
        return torch.arange(n, device=self.dataset.images.device)

    def _draw(self, kind, *args):
        device = self.dataset.images.device
        return kind(*args, generator=self.generator, device=self.generator.device).to(device)
