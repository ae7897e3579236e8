"""A transformer's attention as saliency: one pass gives it beside the logits.

A network gives its attention where it can be called as `net(x, with_attention=True)` and then
returns two things: its output, and maps (B, 1, h, w), at least 0, one value for each patch of the
image. `models/vit_tiny.py` does.
"""
from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .saliency import at_least_float32
from .unwrap import uncompiled, unwrapped

if TYPE_CHECKING:
    from jaxtyping import Float


def output_and_attention(net: nn.Module, x: Float[Tensor, "b c h w"],
                         owner: str) -> tuple[Any, Float[Tensor, "b 1 h2 w2"]]:
    """The network's output for images x, and its attention to their patches, without a graph.

    owner: who asks, for the message. ValueError where the network has no attention to give.
    """
    if not torch.compiler.is_compiling() and not gives_attention(net):
        raise ValueError(f"{owner} reads attention, and {type(uncompiled(net)).__name__} gives "
                         "none: take a transformer, such as vit_tiny of sagelib.models, or write "
                         "forward(self, x, with_attention=False), which with True returns "
                         "(logits, maps (B, 1, h, w))")
    found = net(x, with_attention=True)
    pair = isinstance(found, (tuple, list)) and len(found) == 2
    attention = found[1] if pair else None
    if not isinstance(attention, Tensor) or attention.ndim != 4 or (
            attention.shape[:2] != (len(x), 1)):
        shown = tuple(attention.shape) if isinstance(attention, Tensor) else type(found).__name__
        raise ValueError(f"with_attention=True must give two things, the logits and maps "
                         f"({len(x)}, 1, h, w), not {shown}")
    return found[0], at_least_float32(attention.detach())


def attention_of(net: nn.Module, x: Float[Tensor, "b c h w"],
                 owner: str) -> Float[Tensor, "b 1 h2 w2"]:
    """The network's attention to the patches of images x, by a pass without gradient."""
    with torch.no_grad():
        return output_and_attention(unwrapped(net), x.clone(), owner)[1]


def gives_attention(net: nn.Module) -> bool:
    """Whether the network, or the one inside its wrappers, takes `with_attention`."""
    return "with_attention" in inspect.signature(uncompiled(net).forward).parameters


def enlarged(attention: Float[Tensor, "b 1 h2 w2"],
             x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Maps of patches as maps of the pixels of images x: each pixel has the value of its patch."""
    return F.interpolate(attention, x.shape[2:], mode="nearest")
