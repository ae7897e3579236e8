"""Checkpoints: a run that was stopped continues to the same weights and curve (`fit`).

The state is copied between two epochs; a thread writes the copy while the next epoch trains.
"""
from __future__ import annotations

import copy
import random
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from .. import files
from .step import Run

KEYS = {"settings", "curve", "net", "best", "optimizer", "scaler", "generators", "host", "method",
        "torch", "cuda"}  # and "python" and "rewind_to", which older checkpoints do not have


class Writer:
    """A context in which `save` returns at once; at its end all that was saved is on the disk.

    Each file is at any time the whole checkpoint of one of the run's epochs. On a slow disk an
    epoch is left out if the next ends before the writing of it has begun. OSError, such as that of
    a full disk, comes at the next `save` or at the end; if another error ends the context, as a
    note of that.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        # the copies are kept here too: the memory of a GPU's is then not freed by the thread
        self._writes: list[tuple[Run, Future[None], dict[str, Any]]] = []

    def __enter__(self) -> Writer:
        return self

    def save(self, run: Run) -> None:
        """Write the checkpoint of a `Run`, if it has a path for one, whole or not at all."""
        if run.checkpoint is None:
            return
        self._raise_errors()
        state = _copied(run)
        older = [write for other, write, _ in self._writes if other is run]
        self._writes.append((run, self._thread.submit(files.save, run.checkpoint, state), state))
        for write in older:
            write.cancel()  # which it only does before it begins

    def _raise_errors(self):
        """Forget the writes that ended; the error of one that failed."""
        ended = [write for _, write, _ in self._writes if write.done()]
        self._writes = [found for found in self._writes if found[1] not in ended]
        for write in ended:
            if not write.cancelled():
                write.result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._thread.shutdown()
        try:
            self._raise_errors()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"A checkpoint was not written: {failure}")


def _state(run):
    """What decides the rest of the run; its tensors are those of the run."""
    cpu_rng, on_gpu = run.method.cpu_rng, run.device.type == "cuda"
    return {
        "settings": run.settings(),
        "curve": run.curve,
        "net": run.net.state_dict(),
        "best": run.best,
        "rewind_to": run.rewind_to,
        "optimizer": run.optimizer.state_dict()["state"],
        "scaler": run.scaler.state_dict(),
        "generators": {name: g.get_state() for name, g in run.generators().items()},
        "host": cpu_rng.getstate() if cpu_rng else None,
        "method": run.method.state(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "cuda": torch.cuda.get_rng_state(run.device) if on_gpu else None,
    }


def _copied(run):
    """A copy of a run's state on the host. From a GPU, into pinned memory: one wait for all."""
    with run.place():
        found = _on_host(_state(run), run.stream is not None)
        if run.stream is not None:
            run.stream.synchronize()
    return found


def _on_host(value, pinned):
    """A copy of nested dicts, lists and tuples, with their tensors on the host."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=pinned, copy=True)
    if isinstance(value, dict):
        found = copy.copy(value)  # an OrderedDict with its attributes, as a network's state has
        found.update((name, _on_host(inner, pinned)) for name, inner in value.items())
        return found
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(inner, pinned) for inner in value)
    return value


def restore(run: Run) -> None:
    """Continue from the checkpoint, if any; ValueError if it is damaged or another run's."""
    if run.checkpoint is None or not run.checkpoint.exists():
        return
    state = _read(run.checkpoint)
    _check_settings(state["settings"], run)
    saved, own = sorted(state["generators"]), sorted(run.generators())
    if saved != own:
        raise ValueError(f"the checkpoint {run.checkpoint} has generators of its own for "
                         f"{saved or 'nothing'}, this run for {own or 'nothing'}: seed the same "
                         "parts as before, or give another checkpoint")
    run.net.load_state_dict(state["net"])
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
    run.optimizer.param_groups[0]["lr"] = run.lr
    run.scaler.load_state_dict(state["scaler"])
    for name, generator in run.generators().items():
        generator.set_state(state["generators"][name])
    if run.method.cpu_rng and state["host"]:
        run.method.cpu_rng.setstate(state["host"])
    run.method.load_state(state["method"], run.device)
    torch.set_rng_state(state["torch"])
    if "python" in state:
        random.setstate(state["python"])
    if state["cuda"] is not None and run.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], run.device)
    run.curve = state["curve"]
    if state["best"] is not None:
        run.best = {name: value.to(run.device) for name, value in state["best"].items()}
    run.rewind_to = state.get("rewind_to")  # stays on the host: it is only copied from


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = KEYS - set(state)
    except Exception as error:  # a cut-off file fails in many ways
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the checkpoint {path} cannot be read ({why}): remove it to start again") from error
    if missing:
        raise ValueError(f"{path} is no checkpoint of a training run: it lacks "
                         f"{', '.join(sorted(missing))}")
    return state


def _check_settings(saved: dict[str, Any], run: Run) -> None:
    if saved.get("method", {}).get("name") == type(run.method).__name__:
        # an option that is newer than the checkpoint had its default
        saved["method"] = type(run.method)().options() | saved["method"]
    for part, values in run.settings().items():
        if saved.get(part) != values:
            raise ValueError(f"the checkpoint {run.checkpoint} belongs to another run: its {part} "
                             f"is {saved.get(part)}, this run's {values}. Give this run another "
                             "checkpoint, or remove that one")
