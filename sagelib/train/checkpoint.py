"""Checkpoints: all that a run needs to go on as if it had not been stopped, to the same weights and
curve."""
import random

import torch

from .. import files


def save(run):
    """Write the checkpoint of a `Run`, if it has a path for one, whole or not at all."""
    if run.checkpoint is None:
        return
    state = {
        "settings": run.settings(), "curve": run.curve, "net": run.net.state_dict(),
        "best": run.best, "optimizer": run.optimizer.state_dict()["state"],
        "scaler": run.scaler.state_dict(),
        "generators": {k: g.get_state()
                       for k, g in run.generators().items()
                       }, "host": run.method.cpu_rng.getstate() if run.method.cpu_rng else None,
        "method": run.method.state(), "torch": torch.get_rng_state(), "python": random.getstate(),
        "cuda": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None
    }
    files.replace(run.checkpoint, lambda file: torch.save(state, file))


def restore(run):
    """Take up the checkpoint, if there is one; ValueError if it is damaged or another run's."""
    if run.checkpoint is None or not run.checkpoint.exists():
        return
    state = _read(run.checkpoint)
    saved = state["settings"]
    if saved.get("method", {}).get("name") == type(run.method).__name__:
        # an option that came after the checkpoint was written stood at its default
        saved["method"] = type(run.method)().options() | saved["method"]
    _same(saved, run.settings(), run.checkpoint)
    drawn, here = sorted(state["generators"]), sorted(run.generators())
    if drawn != here:
        raise ValueError(f"the checkpoint {run.checkpoint} has generators of its own for "
                         f"{drawn or 'nothing'}, this "
                         f"run for {here or 'nothing'}: seed the same parts as before, or give "
                         "another checkpoint")
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
    if "python" in state:  # older checkpoints have none
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
    if state["cuda"] is not None and run.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], run.device)
    run.curve, run.best = state["curve"], state["best"]


def _read(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = {
            "settings", "curve", "net", "best", "optimizer", "scaler", "generators", "host",
            "method", "torch", "cuda"
        } - set(state)
    except Exception as error:  # a cut-off file fails in many ways
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the checkpoint {path} cannot be read ({why}): remove it to start again") from error
    if missing:
        raise ValueError(f"{path} is no checkpoint of a training run: it lacks "
                         f"{', '.join(sorted(missing))}")
    return state


def _same(saved, now, path):
    for part, values in now.items():
        if saved.get(part) != values:
            raise ValueError(f"the checkpoint {path} belongs to another run: its {part} is "
                             f"{saved.get(part)}, this run's {values}. Give this run another "
                             "checkpoint, or remove that one")
