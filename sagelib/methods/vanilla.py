"""Vanilla: no mixing, only the crop and flip that every method gets. The yardstick of every table.

Differs from the SAGE authors' code in nothing.
"""
from dataclasses import dataclass

from ..method import Method, Mixed


@dataclass(kw_only=True)
class Vanilla(Method):
    """Each image as it is."""

    def mix(self, x, y, net=None):
        return Mixed(x, y)


build = Vanilla
