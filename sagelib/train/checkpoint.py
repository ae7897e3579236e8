"""Checkpoints: a run that was stopped continues to the same weights and curve."""
from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from .. import files
from .step import Run

KEYS = {"settings", "curve", "net", "best", "optimizer", "scaler", "generators", "host", "method",
        "torch", "cuda"}  # and "python" and "rewind_to", which older checkpoints do not have


def save(run: Run) -> None:
    """Write the checkpoint of a `Run`, if it has a path for one, whole or not at all."""
    if run.checkpoint is None:
        return
    cpu_rng, on_gpu = run.method.cpu_rng, run.device.type == "cuda"
    state = {
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
    files.replace(run.checkpoint, lambda file: torch.save(state, file))


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
    run.curve, run.best = state["curve"], state["best"]
    run.rewind_to = state.get("rewind_to")


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
