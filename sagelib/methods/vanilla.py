"""Vanilla: no mixing, only the crop and flip that every method gets. The yardstick of every table.

Differs from the SAGE authors' code in nothing.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..method import Method, Mixed

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(kw_only=True)
class Vanilla(Method):
    """Each image as it is."""

    def mix(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b k"],
            net: nn.Module | None = None) -> Mixed:
        return Mixed(x, y)


build = Vanilla
