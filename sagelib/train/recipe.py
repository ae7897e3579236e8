"""How to train: the recipe behind the paper's tables, and what may differ from it.

Source: appendix B and the authors' code. SGD with Nesterov momentum 0.9, weight decay 1e-4 on every
parameter, 300 epochs, learning rate 0.2, a tenth of it after each third.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the paper's. `milestones` are shares of the epochs.

    precision: "fp32", or autocast in "bf16" or "fp16" (with a gradient scaler); weights stay
    float32.
    """

    epochs: int = 300
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    decay: float = 0.1
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs!r}; it must be a whole number, at least 1")
        if not self.lr > 0 or not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise ValueError("lr must be above 0, momentum in [0, 1), weight_decay at least 0; "
                             f"they are {self.lr}, {self.momentum}, {self.weight_decay}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.lr * self.decay ** sum(epoch >= m * self.epochs - 1e-9 for m in self.milestones)
