"""Puzzle Mix's transport: salient patches of an image move to where its mask shows it.

The rules are those of the authors' code; the difference is in the sums: winners are found by
scatter, and patches move by gather, where the original multiplies with dense (source, place)
matrices. Plans and images are the same.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..saliency import normalise

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def transport_plan(s: Float[Tensor, "b 1 h w"], m: Float[Tensor, "b 1 h w"],
                   patch: tuple[int, int] | list[int], t_eps: float = 0.8) -> Int[Tensor, "b t"]:
    """For every patch of the frame, which patch of the image comes there: (B, T), -1 for none.

    s: saliency; m: the mask that says where the image shows; patch: its height and width, pixels.
    In each round every source asks for its cheapest place, and each place takes the cheapest of
    those who ask; whoever is refused pays 1 more there. A price that is not negative loses to those
    who do not ask.
    """
    rows, columns = s.shape[2] // patch[0], s.shape[3] // patch[1]
    worth = normalise(F.avg_pool2d(s, patch)).flatten(1)
    wanted = (F.max_pool2d(m, patch) > 0).to(worth.dtype).flatten(1)
    cost = t_eps * _distances(rows, columns, worth) - worth[:, :, None] * wanted[:, None]
    return _assign_patches(cost, max(rows, columns))


def move(x: Float[Tensor, "b c h w"], plan: Int[Tensor, "b t"],
         patch: tuple[int, int] | list[int]) -> Float[Tensor, "b c h w"]:
    """Image (B, C, H, W) with patch plan[d] of it at place d, black where the plan says -1."""
    b, c, h, w = x.shape
    rows, columns = h // patch[0], w // patch[1]
    patches = x.reshape(b, c, rows, patch[0], columns, patch[1]).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(b, rows * columns, -1)
    moved = patches.gather(1, plan.clamp(min=0)[:, :, None].expand_as(patches))
    moved = moved * (plan >= 0)[:, :, None]  # (B, T, pixels of a patch)
    return moved.reshape(b, rows, columns, c, *patch).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


@torch.library.custom_op("sagelib::bargain", mutates_args=())
def _assign_patches(cost: torch.Tensor, rounds: int) -> torch.Tensor:
    """The source at each place after `rounds`, (B, T), -1 for none; cost (B, source, place)."""
    cost = cost.clone()
    rows = cost.flatten(0, 1)
    source = torch.arange(cost.shape[1], device=cost.device).expand(cost.shape[:2])
    price, place = cost.min(2)
    winner = _winners(price, place, source)
    for _ in range(rounds - 1):
        refused = winner.gather(1, place) != source
        # only those refused who can still win ask again; a GPU would wait to hear who
        if cost.device.type == "cpu":
            who = (refused & (price <= 0)).flatten().nonzero()[:, 0]
            rows.view(-1)[who * cost.shape[2] + place.flatten()[who]] += 1
            price.view(-1)[who], place.view(-1)[who] = rows.index_select(0, who).min(1)
        else:
            cost.scatter_add_(2, place[:, :, None], refused[:, :, None].to(cost.dtype))
            price, place = cost.min(2)
        winner = _winners(price, place, source)
    asked = place.gather(1, winner.clamp(max=cost.shape[1] - 1)) == source
    return torch.where(asked, winner, -1)


@_assign_patches.register_fake
def _(cost, rounds):
    return cost.new_empty(cost.shape[:2], dtype=torch.int64)


def _winners(price, place, source):
    """Who gets each place, (B, T): first of the lowest price; who does not ask counts as 0."""
    count = source.shape[1]
    # sources 0.. that ask what 0 asks
    together = (place == place[:, :1]).long().cumprod(1).sum(1, keepdim=True)
    # the first source that does not ask for each place
    idle = torch.where(source == place[:, :1], together, 0)
    lowest = torch.where(idle == count, torch.inf, torch.zeros_like(price))
    lowest = lowest.scatter_reduce(1, place, price, "amin")
    nobody = torch.where(lowest == 0, idle, count)
    cheapest = torch.where(price == lowest.gather(1, place), source, count)
    return nobody.scatter_reduce(1, place, cheapest, "amin")


def _distances(rows, columns, like):
    """Squared distance of every two patches in units of the frame's longer side, (T, T)."""
    at = torch.cartesian_prod(torch.arange(rows, device=like.device),
                              torch.arange(columns, device=like.device))
    squares = (at[:, None] - at[None]).square().sum(2).to(like.dtype)
    return squares / max(max(rows, columns) - 1, 1) ** 2
