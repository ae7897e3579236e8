"""The weights of a trained network in a file, with the record of its training, and back into a
network. Read without executing anything."""

import json
from pathlib import Path

import torch

from .. import files


def save(net, path, record=None):
    """Write the network's state to `path`, whole or not at all; returns the path.

    `record`: of the training that the network comes from, kept in the same file, so that the two
    never part.
    """
    state = {
        "net": {k: v.detach().cpu() for k, v in net.state_dict().items()},
        "record": None if record is None else json.dumps(record),
    }
    files.replace(path, lambda file: torch.save(state, file))
    return Path(path)


def load(net, path):
    """Put the state in `path` into the network, returns it. A checkpoint of a training run will do
    as well: its best epoch where one was chosen, else its last."""
    state = _read(path)
    state = state.get("best") or state.get("net", state)
    own = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    if {k: tuple(v.shape) for k, v in state.items() if isinstance(v, torch.Tensor)} != own:
        raise ValueError(
            f"the weights {path} belong to another network: build it as the run's record says "
            "(model, width, classes)"
        )
    net.load_state_dict(state)
    return net


def record(path):
    """The record of the training that the network in `path` comes from; None where the file holds
    none."""
    text = _read(path).get("record")
    return json.loads(text) if isinstance(text, str) else None


def retrained(record, trained):
    """What an evaluation says of its network: nothing (None) if the record `trained`, which came
    with the weights, has the curve of `record`; else where and when it was trained again, and its
    final accuracy. ValueError if the two are of different runs; an option that only one of them
    knows came later, and stood at its default."""

    def shared(one, two):
        return all(one[k] == two[k] for k in one.keys() & two.keys() - {"seconds", "settings"})

    parts = ("dataset", "model", "method", "recipe")
    if (
        record["seed"] != trained["seed"]
        or not all(shared(record[k], trained[k]) for k in parts)
        or (record["parameters"].get("options", {}) != trained["parameters"].get("options", {}))
    ):
        raise ValueError(
            f"the weights are of run {trained['run']}, the record of run {record['run']}: "
            "they do not belong together"
        )
    if all(map(shared, record["curve"], trained["curve"])):
        return None
    return {
        "final": {k: trained["final"][k] for k in ("accuracy", "loss")},
        **{k: trained[k] for k in ("hardware", "versions", "commit", "finished")},
    }


def _read(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file of weights {path}; the train notebook keeps them where its "
            "parameter `networks` says"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut-off file fails in many ways
        raise ValueError(
            f"the weights {path} cannot be read ({str(error).splitlines()[0]}): train the network "
            "again"
        ) from error
    return state if isinstance(state, dict) else {}
