"""Batches from a data set on the device: crop, flip and normalise the bytes of a batch at once.

The crop is the paper's: zeros around the raw image, 2 pixels each side, then a window of the old
size (the authors' code; the paper says only "random cropping"). Or a window of another size.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compiled import compiled
from ..losses import one_hot
from .dataset import Dataset, standardised

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8

    Batch = tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b k"]]


class Batches:
    """Iterate once for an epoch: images (B, 3, H, W), normalised, and one-hot labels (B, K).

    With `generator`, an epoch is a new random order, cropped (`padding` pixels) and flipped;
    without, the plain images in order, for evaluation. The last batch may be smaller. `crop`:
    height and width of the window, random or, without `generator`, at the centre; None for that of
    the images.
    """

    compiled = False  # whether torch.compile makes one kernel of crop, flip and normalisation

    def __init__(self, dataset: Dataset, size: int = 100, padding: int = 2, flip: bool = True,
                 generator: torch.Generator | None = None,
                 crop: tuple[int, int] | None = None) -> None:
        if size < 1 or padding < 0:
            raise ValueError("a batch has at least 1 image and a padding of 0 or more, not "
                             f"{size} and {padding}")
        self.dataset, self.size, self.generator = dataset, size, generator
        self.padding, self.flip = padding, flip
        self.crop = crop
        h, w = crop or dataset.images.shape[2:]
        padded = dataset.images
        if generator is not None and padding:
            padded = F.pad(padded, (padding,) * 4)
        if not (0 < h <= padded.shape[2] and 0 < w <= padded.shape[3]):
            raise ValueError(f"a crop of {h} x {w} does not fit into images of {padded.shape[2]} x "
                             f"{padded.shape[3]}")
        self._windows = padded.unfold(2, h, 1).unfold(3, w, 1)  # a view: (N, 3, tops, lefts, H, W)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.order().split(self.size):
            yield self.take(index)

    def order(self) -> Int[Tensor, " n"]:
        """Indices (N,) of the images of the next epoch: shuffled if the batches are random."""
        if self.generator is None:
            return torch.arange(len(self.dataset), device=self.dataset.labels.device)
        return self._draw(torch.randperm, len(self.dataset))

    def take(self, index: Int[Tensor, " b"]) -> Batch:
        """The batch of these images: (B, 3, H, W) and labels (B, K). No wait for the device."""
        labels = one_hot(self.dataset.labels[index], len(self.dataset.classes))
        tops, lefts = self._windows.shape[2:4]
        if self.generator is None:
            centre = self._windows[index, :, (tops - 1) // 2, (lefts - 1) // 2]
            return self.dataset.normalised(centre), labels
        n = len(index)
        top = self._draw(torch.randint, tops, (n,))
        left = self._draw(torch.randint, lefts, (n,))
        turned = self._draw(torch.rand, (n,)) < 0.5 if self.flip else None
        constants = self.dataset.constants(self._windows.device)
        augment = compiled(augmented) if self.compiled else augmented
        return augment(self._windows, index, top, left, turned, *constants), labels

    def _draw(self, kind, *args):
        """Random numbers on the images' device; the generator may be on another."""
        # pyrefly: ignore[missing-attribute]  called with a generator only
        numbers = kind(*args, generator=self.generator, device=self.generator.device)
        return numbers.to(self.dataset.images.device)


def augmented(windows: UInt8[Tensor, "n 3 tops lefts h w"], index: Int[Tensor, " b"],
              top: Int[Tensor, " b"], left: Int[Tensor, " b"], turned: Bool[Tensor, " b"] | None,
              mean: Float[Tensor, "3 1 1"],
              std: Float[Tensor, "3 1 1"]) -> Float[Tensor, "b 3 h w"]:
    """Images (B, 3, H, W), normalised: of each, the window at `top` and `left`, mirrored if told.

    windows: all windows of the bytes of all images, a view.
    """
    images = windows[index, :, top, left]  # (B, 3, H, W)
    if turned is not None:
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    return standardised(images, mean, std)
