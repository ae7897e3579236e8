"""What a training run consists of: how it makes a step, and how it is saved and restored."""
import contextlib
import dataclasses
import os
import time
from pathlib import Path

import torch

from ._capture import Captured

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Run:
    """A network, its batches, a method, a recipe, and the curve so far; on a GPU, a stream of its own.

    `checkpoint`: a path, where the run is saved after each epoch and taken up again if the file is there. `graph`:
    on a GPU the step is recorded as a CUDA graph where that can be. `select`: a key of the curve; the weights of the
    first epoch with its highest value are kept in `best`.
    """

    def __init__(self, net, batches, method, recipe, checkpoint=None, graph=True, select=None):
        self.net, self.batches, self.method, self.recipe, self.curve = net, batches, method, recipe, []
        self.select, self.best = select, None
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.device = next(net.parameters()).device
        gpu = self.device.type == "cuda"
        if recipe.channels_last:
            net.to(memory_format=torch.channels_last)
        self.forward = torch.compile(net) if recipe.compile else net
        # on a GPU the learning rate is a tensor there, so that a recorded step sees it change
        self.lr = torch.full((), float(recipe.lr), device=self.device) if gpu else recipe.lr
        self.optimizer = torch.optim.SGD(net.parameters(), self.lr, recipe.momentum, nesterov=recipe.nesterov,
                                         weight_decay=recipe.weight_decay, fused=gpu or None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.stream = torch.cuda.Stream(self.device) if gpu else None
        self.step = self._step
        if gpu and graph:
            self.step = Captured(self._step, batches.size, list(self._generators().values()), method.cpu_rng)

    def place(self):
        """The run's own stream, for what it does between `begin` and `end`."""
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()

    def autocast(self):
        """The recipe's precision, for forward passes."""
        kind = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext()

    def begin(self, epoch):
        """Set the epoch's learning rate and draw its order. The stream begins after all that was asked for so far."""
        if self.stream:
            self.stream.wait_stream(torch.cuda.default_stream(self.device))
        rate = self.recipe.rate(epoch)
        if isinstance(self.lr, torch.Tensor):
            self.lr.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate
        if not self.net.training:  # in a network that trains, a layer in evaluation mode was frozen by the user
            self.net.train()
        self.parts = self.batches.order().split(self.batches.size)
        self.losses = torch.empty(len(self.parts), device=self.device)
        self.started = time.perf_counter()

    def advance(self, k):
        """The epoch's step k; its loss stays on the device."""
        self.losses[k] = self.step(self.parts[k])

    def end(self, epoch):
        """Mean training loss and seconds of the epoch: the one moment when the host waits, to read the losses."""
        with self.place():
            losses = self.losses.cpu()
        seconds = time.perf_counter() - self.started
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            raise FloatingPointError(f"the loss is {losses[bad[0, 0]].item()} in epoch {epoch}, "
                                     f"step {bad[0, 0].item()}; try a lower lr. {self.settings()}")
        return {"epoch": epoch, "lr": self.recipe.rate(epoch), "train_loss": losses.mean().item(), "seconds": seconds}

    def take_up(self, entry):
        """Add a finished epoch to the curve; where it is the best so far by `select`, its weights are kept."""
        if self.select and self.select not in entry:
            raise ValueError(f"the epoch is chosen by {self.select!r}, which is not in the curve: {', '.join(entry)}; "
                             "the test is to return it")
        self.curve.append(entry)
        if self.select and max(self.curve, key=lambda e: e[self.select]) is entry:
            self.best = {k: v.detach().cpu().clone() for k, v in self.net.state_dict().items()}

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

    def settings(self):
        """All that decides the result, for error messages and to refuse a checkpoint of another run."""
        return {"recipe": dataclasses.asdict(self.recipe) | {"milestones": list(self.recipe.milestones)},
                "method": {"name": type(self.method).__name__, **self.method.options()},
                "data": {"images": len(self.batches.dataset), "batch": self.batches.size,
                         "padding": self.batches.padding, "flip": self.batches.flip}, "select": self.select,
                "network": sum(p.numel() for p in self.net.parameters())}

    def _generators(self):
        own = {"method": self.method.generator, "batches": self.batches.generator}
        return {k: g for k, g in own.items() if g is not None}

    def save(self):
        """Write the checkpoint, if there is to be one, under a temporary name, and rename it."""
        if self.checkpoint is None:
            return
        state = {"settings": self.settings(), "curve": self.curve, "net": self.net.state_dict(), "best": self.best,
                 "optimizer": self.optimizer.state_dict()["state"], "scaler": self.scaler.state_dict(),
                 "generators": {k: g.get_state() for k, g in self._generators().items()},
                 "host": self.method.cpu_rng.getstate() if self.method.cpu_rng else None, "method": self.method.state(),
                 "torch": torch.get_rng_state(),
                 "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self.checkpoint.with_name(f"{self.checkpoint.name}.{os.getpid()}.part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.checkpoint)

    def restore(self):
        """Take up the checkpoint, if there is one; ValueError if it is damaged or another run's."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = _read(self.checkpoint)
        saved = state["settings"]
        if saved.get("method", {}).get("name") == type(self.method).__name__:
            # an option that came after the checkpoint was written stood at its default
            saved["method"] = type(self.method)().options() | saved["method"]
        _same(saved, self.settings(), self.checkpoint)
        self.net.load_state_dict(state["net"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.optimizer.param_groups[0]["lr"] = self.lr
        self.scaler.load_state_dict(state["scaler"])
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])
        if self.method.cpu_rng and state["host"]:
            self.method.cpu_rng.setstate(state["host"])
        self.method.load_state(state["method"], self.device)
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
        self.curve, self.best = state["curve"], state["best"]


def _read(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"settings", "curve", "net", "best", "optimizer", "scaler", "generators", "host", "method",
                   "torch", "cuda"} - set(state)
    except Exception as error:  # a cut-off file fails in many ways
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"the checkpoint {path} cannot be read ({why}): remove it to start again") from error
    if missing:
        raise ValueError(f"{path} is no checkpoint of a training run: it lacks {', '.join(sorted(missing))}")
    return state


def _same(saved, now, path):
    for part, values in now.items():
        if saved.get(part) != values:
            raise ValueError(f"the checkpoint {path} belongs to another run: its {part} is {saved.get(part)}, "
                             f"this run's {values}. Give this run another checkpoint, or remove that one")
