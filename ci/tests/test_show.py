"""Figures that are redrawn while something runs, and grids of images."""
import io

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from sagelib import show


class Clock:
    """A clock that stands still until it is set; a drawing takes 3 seconds."""

    def __init__(self):
        self.time, self.drawn = 0.0, []

    def __call__(self):
        return self.time

    def draw(self, what):
        self.drawn.append(what)
        self.time += 3


def test_a_function_is_called_at_most_every_few_seconds():
    """From the end of a drawing to the beginning of the next."""
    clock = Clock()
    draw = show.at_most_every(10, clock.draw, clock)
    for second in (0, 1, 12.9, 13, 14, 25.9, 26, 100, 200):
        clock.time = max(clock.time, second)
        draw(second)
    assert clock.drawn == [0, 13, 26, 100, 200]
    assert draw.__name__ == "draw"


def test_a_failing_drawing_is_tried_again():
    calls = []

    def draw():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no axes")

    slow = show.at_most_every(10, draw, lambda: 0.0)
    with pytest.raises(ValueError, match="no axes"):
        slow()
    slow()
    slow()
    assert len(calls) == 2


def test_a_grid_has_a_kind_for_each_column_and_photographs_are_jpeg(monkeypatch):
    shown, kinds, picture = [], [], show.picture
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setattr(show, "picture", lambda axis, z, kind: (kinds.append(kind),
                                                                picture(axis, z, kind)))
    image, map_ = torch.rand(3, 8, 8), torch.rand(1, 8, 8)
    before = plt.get_fignums()  # of other tests
    show.grid([[image, map_, map_]] * 2, kind=["saliency", "mask", "value"], size=1, jpeg=True)
    assert kinds == ["saliency", "mask", "value"] * 2
    (jpeg,) = shown
    with Image.open(io.BytesIO(jpeg.data)) as opened:
        assert jpeg.format == opened.format.lower() == "jpeg" and opened.size == (240, 160)
    assert plt.get_fignums() == before  # or the notebook would show it a second time
