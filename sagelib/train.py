"""The training loop: handed a network, batches and a method, it knows none of them by name.

The default recipe is the one behind the paper's tables (appendix B and the authors' code): SGD with Nesterov momentum
0.9, weight decay 1e-4 on every parameter, 300 epochs, learning rate 0.2, a tenth of it after each third.
"""
import contextlib
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .evaluate import scores

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are the paper's. `milestones` are shares of the epochs.

    precision: "fp32", or autocast in "bf16" or "fp16" (with a gradient scaler); weights stay float32.
    """

    epochs: int = 300
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    milestones: tuple = (1 / 3, 2 / 3)
    decay: float = 0.1
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self):
        if self.epochs < 1 or int(self.epochs) != self.epochs:
            raise ValueError(f"epochs is {self.epochs!r}; it must be a whole number, at least 1")
        if not self.lr > 0 or not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise ValueError(f"lr must be above 0, momentum in [0, 1), weight_decay at least 0; they are {self.lr}, "
                             f"{self.momentum}, {self.weight_decay}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")

    def rate(self, epoch):
        """Learning rate of an epoch, counted from 0."""
        return self.lr * self.decay ** sum(epoch >= m * self.epochs - 1e-9 for m in self.milestones)


def fit(net, batches, method, recipe=None, test=None, checkpoint=None, on_epoch=None, progress=False):
    """Train `net` in place on `batches` with `method`; returns the curve, one dict an epoch.

    `test` (batches) is scored after every epoch. With `checkpoint`, a path, everything is saved there
    after each epoch, and a run that was killed goes on from there: to the same weights and curve, on the same
    machine and thread count. `on_epoch(curve)` is called after each epoch. A loss that is not finite
    raises FloatingPointError; the checkpoint then still holds the last good epoch.
    """
    recipe = recipe or Recipe()
    run = _Run(net, batches, method, recipe)
    if checkpoint is not None and Path(checkpoint).exists():
        run.restore(checkpoint)
    with _bar(progress, recipe.epochs * len(batches), len(run.curve) * len(batches)) as bar:
        for epoch in range(len(run.curve), recipe.epochs):
            entry = {"epoch": epoch, "lr": recipe.rate(epoch), **run.epoch(epoch, bar.update)}
            if test is not None:
                with run.autocast():
                    entry |= {f"test_{k}": v for k, v in scores(run.forward, test).items()}
            run.curve.append(entry)
            bar.set_postfix({k: f"{v:.4g}" for k, v in entry.items() if k in ("train_loss", "test_accuracy")})
            if checkpoint is not None:
                run.save(checkpoint)
            if on_epoch is not None:
                on_epoch(run.curve)
    return run.curve


class _Run:
    """What a training run consists of, and how it is saved and restored."""

    def __init__(self, net, batches, method, recipe):
        self.net, self.batches, self.method, self.recipe, self.curve = net, batches, method, recipe, []
        self.device = next(net.parameters()).device
        if recipe.channels_last:
            net.to(memory_format=torch.channels_last)
        self.forward = torch.compile(net) if recipe.compile else net
        self.optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, nesterov=recipe.nesterov,
                                         weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")

    def autocast(self):
        kind = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()

    def epoch(self, epoch, tick):
        """One pass over the batches: mean training loss and seconds. Losses are read once, at the end."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(epoch)
        self.net.train()
        losses, start = [], time.perf_counter()
        for x, y in self.batches:
            losses.append(self.step(x, y))
            tick()
        losses = torch.stack(losses).float()
        seconds = time.perf_counter() - start
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            raise FloatingPointError(f"the loss is {losses[bad[0, 0]].item()} in epoch {epoch}, "
                                     f"step {bad[0, 0].item()}; try a lower lr. {self.settings()}")
        return {"train_loss": losses.mean().item(), "seconds": seconds}

    def step(self, x, y):
        if self.recipe.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.method.backward(self.forward, x, y, self.scaler.scale)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def settings(self):
        """All that decides the result, for error messages and to refuse a checkpoint of another run."""
        return {"recipe": dataclasses.asdict(self.recipe) | {"milestones": list(self.recipe.milestones)},
                "method": {"name": type(self.method).__name__, **self.method.options()},
                "data": {"images": len(self.batches.dataset), "batch": self.batches.size,
                         "padding": self.batches.padding, "flip": self.batches.flip},
                "network": sum(p.numel() for p in self.net.parameters())}

    def _generators(self):
        own = {"method": self.method.generator, "batches": self.batches.generator}
        return {k: g for k, g in own.items() if g is not None}

    def save(self, path):
        state = {"settings": self.settings(), "curve": self.curve, "net": self.net.state_dict(),
                 "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                 "generators": {k: g.get_state() for k, g in self._generators().items()},
                 "host": self.method.host.getstate() if self.method.host else None, "torch": torch.get_rng_state(),
                 "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)

    def restore(self, path):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            missing = {"settings", "curve", "net", "optimizer", "scaler", "generators", "host", "torch",
                       "cuda"} - set(state)
        except Exception as error:  # a cut-off file fails in many ways
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"the checkpoint {path} cannot be read ({why}): remove it to start again") from error
        if missing:
            raise ValueError(f"{path} is no checkpoint of a training run: it lacks {', '.join(sorted(missing))}")
        _same(state["settings"], self.settings(), path)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])
        if self.method.host and state["host"]:
            self.method.host.setstate(state["host"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
        self.curve = state["curve"]


def _same(saved, now, path):
    for part, values in now.items():
        if saved.get(part) != values:
            raise ValueError(f"the checkpoint {path} belongs to another run: its {part} is {saved.get(part)}, "
                             f"this run's {values}. Give this run another checkpoint, or remove that one")


def _bar(progress, total, done):
    if not progress:
        from types import SimpleNamespace
        return contextlib.nullcontext(SimpleNamespace(update=lambda: None, set_postfix=lambda _: None))
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the progress bar needs tqdm: pip install 'sagelib[book]', or progress=False") from error
    return tqdm(total=total, initial=done, unit="step", mininterval=1, dynamic_ncols=True)
