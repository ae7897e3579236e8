"""The weights of a trained network in a file, with its record; reading executes nothing."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import catalog, files, models

if TYPE_CHECKING:
    from torch import nn

    from .schema import Record


def save(net: nn.Module, path: str | Path, record: Record | None = None) -> Path:
    """The file with the network's state, written whole or not at all.

    `record`: of the training that the network comes from, kept in the same file, so that the two
    never part.
    """
    state = {"net": {k: v.detach().cpu() for k, v in net.state_dict().items()},
             "record": None if record is None else json.dumps(record)}
    files.save(path, state)
    return Path(path)


def load(net: nn.Module, path: str | Path) -> nn.Module:
    """The network, with the weights in `path`.

    A checkpoint of a training run will do: its best epoch where one was chosen, else its last.
    """
    state = _read(path)
    state = state.get("best") or state.get("net", state)
    own = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    if {k: tuple(v.shape) for k, v in state.items() if isinstance(v, torch.Tensor)} != own:
        raise ValueError(f"the weights {path} belong to another network: build it as the run's "
                         "record says (model, width, classes)")
    net.load_state_dict(state)
    return net


def network(run: Record, path: str | Path) -> nn.Module:
    """The network that a run's record describes, with the weights in `path`."""
    width = run["model"]["width"]
    net = catalog.load(models, run["model"]["name"], classes=run["dataset"]["classes"],
                       **({"width": width} if width else {}))
    return load(net, path)


def record(path: str | Path) -> Record | None:
    """The record of the training that the network in `path` comes from, or None."""
    text = _read(path).get("record")
    return json.loads(text) if isinstance(text, str) else None


def check_accuracy(trained: Record, accuracy: float) -> None:
    """ValueError unless a network has the test accuracy, percent, that its record states.

    Other hardware or batches move it by at most 0.1.
    """
    stated = trained["final"]["accuracy"]
    if abs(accuracy - stated) > 0.1:
        raise ValueError(f"these weights have an accuracy of {accuracy:.2f} %, the record of their "
                         f"training says {stated:.2f} %: they do not belong together")


def stored(folder: str | Path) -> dict[Path, Record]:
    """All files of weights under a folder that hold the record of their training, by path."""
    found = {file: record(file) for file in sorted(Path(folder).rglob("*.pt"))}
    return {file: trained for file, trained in found.items() if trained is not None}


def retrained(record: Record, trained: Record) -> dict[str, Any] | None:
    """What an evaluation says of a network whose record `trained` came with the weights.

    None if it has the curve of `record`, else where and when it was trained again, and its final
    accuracy. ValueError if the two are of different runs; an option that only one of them knows was
    added later, and was at its default.
    """
    def shared(one, two):
        return all(one[k] == two[k] for k in one.keys() & two.keys() - {"seconds", "settings"})

    parts = ("dataset", "model", "method", "recipe")
    options = [r["parameters"].get("options", {}) for r in (record, trained)]
    same = record["seed"] == trained["seed"] and options[0] == options[1]
    if not same or not all(shared(record[k], trained[k]) for k in parts):
        raise ValueError(f"the weights are of run {trained['run']}, the record of run "
                         f"{record['run']}: they do not belong together")
    if all(map(shared, record["curve"], trained["curve"])):
        return None
    return {"final": {k: trained["final"][k] for k in ("accuracy", "loss")},
            **{k: trained[k] for k in ("hardware", "versions", "commit", "finished")}}


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file of weights {path}; the train notebook keeps "
                                "them where its parameter `networks` says")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut-off file fails in many ways
        raise ValueError(f"the weights {path} cannot be read ({str(error).splitlines()[0]}): "
                         "train the network again") from error
    return state if isinstance(state, dict) else {}
