"""The weights of a trained network in a file, and back into a network. Read without executing anything."""
import os
from pathlib import Path

import torch


def save(net, path):
    """Write the network's state to `path`, under a temporary name that is then renamed; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    torch.save({k: v.detach().cpu() for k, v in net.state_dict().items()}, part)
    os.replace(part, path)
    return path


def load(net, path):
    """Put the state in `path` into the network, returns it. A checkpoint of a training run will do as well: its best
    epoch where one was chosen, else its last."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file of weights {path}; the train notebook keeps them where its "
                                "parameter `networks` says")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut-off file fails in many ways
        raise ValueError(f"the weights {path} cannot be read ({str(error).splitlines()[0]}): train the network "
                         "again") from error
    state = state.get("best") or state.get("net", state) if isinstance(state, dict) else {}
    own = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    if {k: tuple(v.shape) for k, v in state.items() if isinstance(v, torch.Tensor)} != own:
        raise ValueError(f"the weights {path} belong to another network: build it as the run's record says "
                         "(model, width, classes)")
    net.load_state_dict(state)
    return net
