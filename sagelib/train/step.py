"""A training run: how it makes a step, and what an epoch adds to its curve."""
from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .cuda_graph import CudaGraphStep
from .recipe import PRECISIONS, Recipe

if TYPE_CHECKING:
    from ..data.batches import Batches
    from ..method import Method
    from .cuda_graph import Step

Entry = dict[str, float]  # an epoch's numbers, by name
Curve = list[Entry]


class Run:
    """A network, its batches, a method, a recipe, and the curve so far; on a GPU, its own stream.

    `checkpoint`: a path, where the run is saved after each epoch and continued from if the file is
    there. `graph`: on a GPU the step is recorded as a CUDA graph where that can be. `select`: a key
    of the curve; the weights of the first epoch with its highest value are kept in `best`, on the
    device; with its lowest value where the key ends with "loss".
    """

    def __init__(self, net: nn.Module, batches: Batches, method: Method, recipe: Recipe,
                 checkpoint: str | Path | None = None, graph: bool = True,
                 select: str | None = None) -> None:
        if not (hasattr(batches, "order") and hasattr(batches, "take")):
            raise TypeError(f"batches is a {type(batches).__name__}; it must be Batches of "
                            "sagelib.data.batches; a DataLoader goes with a Mixer in a loop of "
                            "your own")
        if not (hasattr(method, "units") and hasattr(method, "options")):
            raise TypeError(f"method is a {type(method).__name__}; it must be a method of the "
                            "catalogue, such as catalog.load(methods, 'sage'); a Mixer is for "
                            "a loop of your own")
        self.net, self.batches, self.method, self.recipe = net, batches, method, recipe
        self.curve: Curve = []
        self.select = select
        self.best: dict[str, Tensor] | None = None
        self.rewind_to: dict[str, Any] | None = None  # network and optimiser of the lowest loss
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.device = next(net.parameters()).device
        gpu = self.device.type == "cuda"
        if recipe.channels_last:
            net.to(memory_format=torch.channels_last)
        self.forward = net
        if recipe.compile:
            options = dict(recipe.compile_options) or None
            self.forward = cast("nn.Module", torch.compile(net, options=options))
        method.compiled = recipe.compile
        batches.compiled = recipe.compile and gpu  # on a CPU the crop is faster as it is
        # on a GPU the learning rate is a tensor there, so that a recorded step sees it change
        self.rate: float | None = None  # that has been set
        self.lr = torch.full((), float(recipe.lr), device=self.device) if gpu else recipe.lr
        self.optimizer = _optimizer(net, recipe, self.lr, gpu)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.stream = torch.cuda.Stream(self.device) if gpu else None
        self.step: Step = self._step
        if gpu and graph:
            self.step = CudaGraphStep(self._step, batches.size, list(self.generators().values()),
                                      method.cpu_rng)

    def place(self) -> contextlib.AbstractContextManager[Any]:
        """A context on the run's own stream, for what reads its network between two epochs.

        `begin`, `advance` and `end` enter it themselves.
        """
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in the recipe's precision, for forward passes."""
        kind = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()

    def begin(self, epoch: int) -> None:
        """Draw the epoch's order and its learning rates, after all work asked for so far."""
        if self.stream:
            for earlier in (torch.cuda.default_stream, torch.cuda.current_stream):
                self.stream.wait_stream(earlier(self.device))
        # in a network that trains, a layer in evaluation mode was frozen by the user
        if not self.net.training:
            self.net.train()
        with self.place():  # drawn on the stream that reads it
            self.batch_indices = self.batches.order().split(self.batches.size)
            steps = len(self.batch_indices)
            self.losses = torch.empty(steps, device=self.device)
        if self.recipe.schedule == "plateau":  # one rate an epoch
            self.rates = [self.recipe.rate(epoch, losses=self._monitored())] * steps
        else:
            self.rates = [self.recipe.rate(epoch, step, steps) for step in range(steps)]
        self.started = time.perf_counter()

    def advance(self, k: int) -> None:
        """The epoch's step k; its loss stays on the device."""
        with self.place(), _fastest_convolutions():
            self._set_rate(self.rates[k])
            self.losses[k] = self.step(self.batch_indices[k])

    def end(self, epoch: int) -> Entry:
        """Mean training loss and seconds of the epoch.

        Only here does the host wait, to read the losses. FloatingPointError if one is not finite.
        """
        with self.place():
            losses = self.losses.cpu()
        seconds = time.perf_counter() - self.started
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0, 0])
            raise FloatingPointError(f"the loss is {losses[step].item()} in epoch {epoch}, step "
                                     f"{step}; try a lower lr. {self.settings()}")
        return {"epoch": epoch, "lr": self.rates[0], "train_loss": losses.mean().item(),
                "seconds": seconds}

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train: all epochs are done, or the plateau ended them."""
        done = len(self.curve) >= self.recipe.epochs
        return done or self.recipe.ended(self._monitored())

    def record_epoch(self, entry: Entry) -> None:
        """Add a finished epoch to the curve; keep its weights if it is the best by `select`.

        On a plateau with `rewind`, the network goes back to the epoch of the lowest loss.
        """
        recipe, plateau = self.recipe, self.recipe.schedule == "plateau"
        for key, why in ((self.select, "the epoch is chosen by"),
                         (plateau and recipe.monitor, "the learning rate follows")):
            if key and key not in entry:
                raise ValueError(f"{why} {key!r}, which is not in the curve: {', '.join(entry)}; "
                                 "the test is to return it after every epoch")
        self.curve.append(entry)
        if self.select and best_epoch(self.curve, self.select) is entry:
            self.best = self._copied(self.net.state_dict())
        if plateau and recipe.rewind:
            if best_epoch(self.curve, recipe.monitor) is entry:
                self.rewind_to = {"net": self._copied(self.net.state_dict()),
                                  "optimizer": [*map(self._copied, self._optimizer_state())]}
            elif recipe.plateau(self._monitored())[1]:
                self._rewind()

    def _copied(self, tensors):
        """A dict's tensors as they are now, on the device."""
        with self.place():
            found = {name: value.detach().clone() for name, value in tensors.items()}
        if self.stream:
            self.stream.synchronize()
        return found

    def _monitored(self):
        """The losses of the epochs so far that the plateau is told by."""
        if self.recipe.schedule != "plateau":
            return []
        return [entry[self.recipe.monitor] for entry in self.curve]

    def _optimizer_state(self):
        """The optimiser's tensors for each parameter that has some, in order."""
        state = self.optimizer.state
        return [state[p] for p in self.net.parameters() if p in state]

    def _rewind(self):
        """Network and optimiser as they were after the lowest loss, in place.

        In place, since a recorded step reads these very tensors.
        """
        assert self.rewind_to is not None  # the first epoch is the best so far
        with torch.no_grad(), self.place():
            self.net.load_state_dict(self.rewind_to["net"])
            for state, kept in zip(self._optimizer_state(), self.rewind_to["optimizer"],
                                   strict=True):
                for name, value in kept.items():
                    state[name].copy_(value)

    def _set_rate(self, rate):
        if rate == self.rate:
            return
        if isinstance(self.lr, Tensor):
            self.lr.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate
        self.rate = rate

    def _step(self, index):
        x, y = self.batches.take(index)
        if self.recipe.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.method.loss(self.forward, x, y, self.scaler)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this run; also for messages.

        The recipe, the method and its options, how many images and weights there are, and how
        batches are made; not the seeds, nor the images themselves.
        """
        crop = {"crop": list(self.batches.crop)} if self.batches.crop else {}
        return {
            "recipe": self.recipe.described(),
            "method": {"name": type(self.method).__name__, **self.method.options()},
            "data": {
                "images": len(self.batches.dataset),
                "batch": self.batches.size,
                "padding": self.batches.padding,
                "flip": self.batches.flip,
                **crop,
            },
            "select": self.select,
            "network": sum(p.numel() for p in self.net.parameters()),
        }

    def generators(self) -> dict[str, torch.Generator]:
        """The generators of the method and of the batches, where they have their own."""
        own = {"method": self.method.generator, "batches": self.batches.generator}
        return {name: generator for name, generator in own.items() if generator is not None}


def best_epoch(curve: Sequence[Entry], key: str) -> Entry:
    """The first entry of a curve with the highest value of a key, the lowest of a loss.

    A loss is a key that ends with "loss". Values that are not a number come last.
    """
    sign = -1 if key.endswith("loss") else 1
    values = (sign * entry[key] for entry in curve)
    ranked = [value if value == value else -math.inf for value in values]
    return curve[ranked.index(max(ranked))]


def _optimizer(net, recipe, lr, gpu):
    """The recipe's optimiser; on a GPU fused, and so that a CUDA graph can record its step."""
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(recipe.optimizer)
    if adam is not None:
        return adam(net.parameters(), lr, weight_decay=recipe.weight_decay, fused=gpu or None,
                    capturable=gpu)
    return torch.optim.SGD(net.parameters(), lr, recipe.momentum, nesterov=recipe.nesterov,
                           weight_decay=recipe.weight_decay, fused=gpu or None)


@contextlib.contextmanager
def _fastest_convolutions():
    """A context in which cuDNN tries its algorithms once for each shape and keeps the fastest.

    Unless the user asked for deterministic ones.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = before or not cudnn.deterministic
    try:
        yield
    finally:
        cudnn.benchmark = before
