"""Figures that are redrawn while something runs."""
import pytest

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
