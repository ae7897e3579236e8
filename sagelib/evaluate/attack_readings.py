"""What the paper's two sentences about its attacks may mean, one attack for each reading.

Section 4.2 names FGSM and FGM with budgets of 8/255 and 0.5 and leaves four things open: on which
network a perturbation is computed (the one that is evaluated, another one, several), the label
whose loss is raised (the true one or the network's own prediction), the unit of a budget, and what
FGM's length belongs to. `evaluate` measures one network under every combination, and under the
paper's noise in every unit. All images are clamped to [0, 1]; what clamping changes,
`robustness.evaluate` measures.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..data.dataset import Dataset
from ..modes import evaluation_mode
from ..pixels import PerChannel, per_channel_tensor
from .robustness import (
    L2,
    LINF,
    VARIANCE,
    AttackSpace,
    Convention,
    fgm,
    fgsm,
    gaussian,
    loss_gradient,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SOURCES = ("own", "another", "several")  # whose gradient
LABELS = ("true", "predicted")
UNITS = ("pixels", "[-1, 1]", "normalised")  # black to white is 1, is 2, is 1 / std
LENGTHS = ("image", "batch", "none")  # FGM: an image's step, a batch's step, or no division at all
FGM = (*((unit, "image") for unit in UNITS), ("pixels", "batch"), ("pixels", "none"))
__all__ = ["LABELS", "LENGTHS", "SOURCES", "UNITS", "attacked", "evaluate", "gradients", "name",
           "unit_in_pixels"]


def name(source: str, label: str, unit: str, length: str = "image") -> str:
    """A reading in words, as records name it, for example "own, true label, pixels"."""
    for given, known in ((source, SOURCES), (label, LABELS), (unit, UNITS), (length, LENGTHS)):
        if given not in known:
            raise ValueError(f"unknown {given!r}; a reading knows {', '.join(map(repr, known))}")
    words = f"{source}, {label} label, {unit}"
    return words if length == "image" else f"{words}, length: {length}"


def unit_in_pixels(unit: str, std: PerChannel) -> Float[Tensor, "c 1 1"]:
    """How far a step of 1 in this unit is in pixels of [0, 1], for each channel: (C, 1, 1)."""
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; it must be one of {', '.join(map(repr, UNITS))}")
    scale = per_channel_tensor(std, "cpu")
    return scale if unit == "normalised" else torch.full_like(scale, 0.5 if unit[0] == "[" else 1.0)


def gradients(
    nets: Sequence[AttackSpace], pixels: Float[Tensor, "b c h w"], y: Int[Tensor, " b"],
) -> dict[str, Float[Tensor, "b c h w"]]:
    """The gradient of the networks' mean loss with respect to the pixels, for each label.

    {"true": (B, C, H, W), "predicted": (B, C, H, W)}; what is predicted is each network's own.
    """
    true, predicted = [], []
    for net in nets:
        logits, grad = loss_gradient(net, pixels, y)
        true.append(grad)
        predicted.append(loss_gradient(net, pixels, logits.argmax(1))[1])
    return {label: torch.stack(grads).mean(0)  # (B, C, H, W)
            for label, grads in zip(LABELS, (true, predicted), strict=True)}


def attacked(
    kind: str, pixels: Float[Tensor, "b c h w"], grad: Float[Tensor, "b c h w"],
    unit: Float[Tensor, "c 1 1"], budget: float, length: str = "image",
) -> Float[Tensor, "b c h w"]:
    """Pixels (B, C, H, W) in [0, 1] after one step of "fgsm" or "fgm" whose budget is in `unit`.

    grad: with respect to the pixels. unit: from `unit_in_pixels`. length, of "fgm": the budget is
    the l2 length of each image's step, of the whole batch's, or ("none") the factor of a gradient
    that is not divided by its length.
    """
    z, g = pixels / unit, grad * unit
    if kind == "fgsm":
        moved = fgsm(z, g, budget)
    elif length == "batch":  # one image of B * C channels
        moved = fgm(z.flatten(0, 1)[None], g.flatten(0, 1)[None], budget)[0].view_as(z)
    else:
        moved = fgm(z, g, budget) if length == "image" else z + budget * g
    return (moved * unit).clamp(0, 1)


@torch.no_grad()
def evaluate(
    net: nn.Module, dataset: Dataset, another: nn.Module | None = None,
    several: Sequence[nn.Module] = (), linf: float = LINF, l2: float = L2,
    variance: float = VARIANCE, batch: int = 100, seed: int = 0,
) -> dict[str, float | dict[str, float]]:
    """Accuracy in percent, clean and by perturbation and reading: {"clean": ..., "fgsm": {...}}.

    "gaussian" is read in each unit, and once with `variance` as the standard deviation in pixels.
    another, several: trained networks whose gradients are used for those two sources; without them
    the readings that need them are left out. All networks are in evaluation mode meanwhile. `batch`
    decides FGM's steps where a batch shares a length; `seed`: of the noise.
    """
    sources = {"own": [net], "another": [another] if another is not None else [],
               "several": [*several]}
    spaces = {source: [AttackSpace(each, dataset.mean, dataset.std, Convention()) for each in nets]
              for source, nets in sources.items() if nets}
    seen, generator = spaces["own"][0], torch.Generator().manual_seed(seed)
    counts: dict[str, dict[str, Tensor]] = {"clean": {}, "gaussian": {}, "fgsm": {}, "fgm": {}}
    budgets = {"gaussian": variance, "fgsm": linf, "fgm": l2}
    units = {unit: unit_in_pixels(unit, dataset.std).to(dataset.images.device) for unit in UNITS}
    with evaluation_mode(nn.ModuleList(each for nets in sources.values() for each in nets)):
        for images, y in zip(dataset.images.split(batch), dataset.labels.split(batch), strict=True):
            pixels = images.float() / 255  # (B, C, H, W)
            noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
            for kind, reading, changed in _perturbed(spaces, pixels, y, noise, units, budgets):
                right = (seen(changed).argmax(1) == y).sum()
                counts[kind][reading] = counts[kind].get(reading, 0) + right
    percent = {kind: {reading: 100 * float(n) / len(dataset) for reading, n in found.items()}
               for kind, found in counts.items()}
    return {**percent, "clean": percent["clean"]["clean"]}


def _perturbed(spaces, pixels, y, noise, units, budgets) -> Iterator[tuple[str, str, Tensor]]:
    """Perturbation, reading, and the changed pixels (B, C, H, W), one after another."""
    variance = budgets["gaussian"]
    yield "clean", "clean", pixels
    for unit, scale in units.items():
        noisy = gaussian(pixels / scale, variance, noise) * scale
        yield "gaussian", unit, noisy.clamp(0, 1)
    yield "gaussian", "standard deviation", gaussian(pixels, variance**2, noise).clamp(0, 1)
    for source, nets in spaces.items():
        for label, grad in gradients(nets, pixels, y).items():
            for unit, scale in units.items():
                yield ("fgsm", name(source, label, unit),
                       attacked("fgsm", pixels, grad, scale, budgets["fgsm"]))
            for unit, length in FGM:
                yield ("fgm", name(source, label, unit, length),
                       attacked("fgm", pixels, grad, units[unit], budgets["fgm"], length))
