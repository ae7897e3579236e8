"""How to train: the recipe behind the paper's tables, and what may differ from it.

Source: appendix B and the authors' code. SGD with Nesterov momentum 0.9, weight decay 1e-4 on every
parameter, 300 epochs, learning rate 0.2, a tenth of it after each third. The other schedules are
PyTorch's own: `CosineAnnealingLR`, `OneCycleLR` and `ReduceLROnPlateau`.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SCHEDULES = ("steps", "cosine", "one_cycle", "plateau")
OPTIMIZERS = ("sgd", "adam", "adamw")
_OF_PLATEAU = {"patience", "monitor", "rewind", "last_lr"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the paper's.

    optimizer: "sgd", with `momentum` and `nesterov`, or "adam", PyTorch's `Adam`, which has neither
    here and adds the weight decay to the gradient (L2), or "adamw", PyTorch's `AdamW`, which takes
    it off the weights. Transformers are usually trained with "adamw": under Adam with L2 the
    weights whose gradient is small shrink the most.
    schedule: "steps" multiplies the learning rate by `decay` at each of `milestones`, shares of the
    epochs. Two change it at every step: "cosine" lets it fall from `lr` to 0 along half a cosine;
    "one_cycle" lets it rise from lr/25 to `lr` in the first 30 % of the steps, and then fall to
    lr/250,000. The momentum is constant: PyTorch's `OneCycleLR` would also vary that. "plateau"
    multiplies it by `decay` after more than `patience` epochs in a row without a new lowest value
    of `monitor`, a loss in the curve (`ReduceLROnPlateau` with threshold 0). With `rewind`,
    training then goes on from the best epoch so far: its weights, the state of the optimiser, and
    its learning rate times `decay`. Training ends before `epochs` when the rate has come down to
    `last_lr` times `lr`.
    precision: "fp32", or autocast in "bf16" or "fp16" (with a gradient scaler); weights stay
    float32. compile: by torch.compile, the network and the arithmetic around it; compile_options
    are the network's `options`, those of inductor by name, such as {"combo_kernels": True}.
    """

    epochs: int = 300
    optimizer: str = "sgd"
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: str = "steps"
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    decay: float = 0.1
    patience: int = 10
    monitor: str = "val_loss"
    rewind: bool = False
    last_lr: float = 0.0
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    compile_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs!r}; it must be a whole number, at least 1")
        if not self.lr > 0 or not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise ValueError("lr must be above 0, momentum in [0, 1), weight_decay at least 0; "
                             f"they are {self.lr}, {self.momentum}, {self.weight_decay}")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES),
                            ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if type(self.patience) is not int or self.patience < 0 or not 0 <= self.last_lr < 1:
            raise ValueError("patience must be a whole number of epochs, last_lr a share of lr in "
                             f"[0, 1); they are {self.patience!r} and {self.last_lr!r}")
        if self.schedule == "plateau" and not 0 < self.decay < 1:
            raise ValueError(f"decay is {self.decay!r}; with the schedule plateau it must be "
                             "between 0 and 1")
        if self.schedule == "plateau" and not self.monitor.endswith("loss"):
            raise ValueError(f"monitor is {self.monitor!r}; the plateau follows a loss: a key of "
                             "the curve that ends with 'loss'")
        if self.compile_options and not self.compile:
            raise ValueError(f"compile_options are {dict(self.compile_options)}, and nothing is "
                             "compiled: set compile, or leave them out")

    def rate(self, epoch: int, step: int = 0, steps: int = 1,
             losses: Sequence[float] = ()) -> float:
        """Learning rate of a step of an epoch that has `steps` of them; all are counted from 0.

        losses: of the epochs before this one, for the schedule "plateau".
        """
        if self.schedule == "plateau":
            return self.plateau(losses[:epoch])[0]
        if self.schedule != "steps":
            return _rates(self.schedule, self.lr, self.epochs * steps)[epoch * steps + step]
        return self.lr * self.decay ** sum(epoch >= m * self.epochs - 1e-9 for m in self.milestones)

    def plateau(self, losses: Sequence[float]) -> tuple[float, bool]:
        """Learning rate after epochs with these losses, and whether the last of them lowered it."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], self.lr)
        scheduler = ReduceLROnPlateau(optimizer, factor=self.decay, patience=self.patience,
                                      threshold=0, eps=0)
        group, fell = optimizer.param_groups[0], False
        best, rate_of_best = math.inf, self.lr
        for loss in losses:
            rate = group["lr"]
            if loss < best:
                best, rate_of_best = loss, rate
            scheduler.step(loss)
            fell = group["lr"] < rate
            if fell and self.rewind:
                group["lr"] = rate_of_best * self.decay
        return group["lr"], fell

    def ended(self, losses: Sequence[float]) -> bool:
        """Whether epochs with these losses have brought the learning rate down to `last_lr`."""
        if self.schedule != "plateau" or not self.last_lr:
            return False
        return self.plateau(losses)[0] <= self.last_lr * self.lr * (1 + 1e-9)

    def described(self) -> dict[str, Any]:
        """The fields as a record keeps them, without those that this recipe has no use for.

        "sgd" and "steps" are not written: they are those of every record that names none. Neither
        are compile_options where there are none.
        """
        found = {**asdict(self), "milestones": list(self.milestones)}
        unused = {"schedule"} if self.schedule == "steps" else {"milestones", "decay"}
        unused |= {"optimizer"} if self.optimizer == "sgd" else {"momentum", "nesterov"}
        unused = unused - {"decay"} if self.schedule == "plateau" else unused | _OF_PLATEAU
        if not self.compile_options:
            unused.add("compile_options")
        return {name: value for name, value in found.items() if name not in unused}


@functools.lru_cache(maxsize=8)
def _rates(schedule, lr, steps):
    """The learning rate of each step of a run, as PyTorch's scheduler sets it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    if schedule == "cosine":
        scheduler = CosineAnnealingLR(optimizer, steps)
    else:
        scheduler = OneCycleLR(optimizer, lr, steps, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates
