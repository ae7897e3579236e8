"""Hours that a run is expected to take: what its network computes, at a timed machine's pace.

The unit is one pass through the network: forward, or backward to the layers' inputs, or backward to
the weights. Each method says how many units its step has (`Method.units`); a test after an epoch is
one unit. For one image a unit takes

    operations / (operations a second) + numbers / (numbers a second)

Operations are the multiplications and additions of convolutions and linear layers, as in the
chapter "Cost". Numbers are what the layers with weights write: narrow and grouped networks compute
little for each number. The two paces of a machine follow from the vanilla steps of two networks
that were timed on it. With one network, numbers take no time.
"""
from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ... import catalog, datasets, methods, models
from ...modes import evaluation_mode
from .. import parameters, records, timing
from ..paper_recipe import PAPER
from ..plans import defaults

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor, nn

    from ..plans import RunSpec

    Work = tuple[float, float]  # (operations, numbers) of a forward pass for one image

VANILLA = 3  # units of a vanilla step
BENCHMARK = 0.1  # hours of a run that trains nothing, such as step_time
TABLE_6 = PAPER["epochs"] * PAPER["train_images"]  # images of a run in the paper's Table 6
NOT_INCLUDED = ("Solvers, start-up and evaluations after the training are not included, and a "
                "narrow network takes a GPU longer than its operations say.")


@functools.cache
def forward_work(model: str, width: int = 0, height: int = 32, image_width: int = 32) -> Work:
    """(operations, numbers) of a forward pass for one image; width 0 is the network's own."""
    with torch.random.fork_rng(devices=[]):
        net = catalog.load(models, model, classes=10, **({"width": width} if width else {}))
    return count(net, torch.zeros(1, 3, height, image_width))


def count(net: nn.Module, x: Float[Tensor, "b c h w"]) -> Work:
    """(operations, numbers) of net(x) for each image, by hooks on the layers with weights."""
    found = []

    def see(layer, _, out):
        products = layer.weight[0].numel() if layer.weight.ndim > 1 else 0
        found.append((2 * out.numel() * products, out.numel()))

    layers = [m for m in net.modules() if isinstance(getattr(m, "weight", None), torch.Tensor)]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        with torch.no_grad(), evaluation_mode(net):
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    operations, numbers = (sum(column) / len(x) for column in zip(*found, strict=True))
    return operations, numbers


@dataclass(frozen=True)
class Machine:
    """How fast a machine computes: seconds for an operation and for a number, and their source."""

    name: str
    source: str
    per_operation: float
    per_number: float

    def unit_seconds(self, work: Work) -> float:
        """Seconds that one unit takes for one image."""
        return work[0] * self.per_operation + work[1] * self.per_number

    def __str__(self) -> str:
        numbers = f" and {1e-9 / self.per_number:.3g}·10⁹ numbers" if self.per_number else ""
        basis = "" if self.per_number else ", where one network was timed"
        pace = f"{1e-12 / self.per_operation:.3g}·10¹² operations{numbers} a second"
        return f"{self.name}: {pace}, from {self.source}{basis}"


def machine(name: str, source: str, steps: Sequence[tuple[Work, float]]) -> Machine:
    """The machine on which vanilla steps took so long; steps: (work, seconds an image) of each."""
    ratios = np.array([[VANILLA * w / seconds for w in work] for work, seconds in steps])  # (n, 2)
    paces, _, rank, _ = np.linalg.lstsq(ratios, np.ones(len(steps)), rcond=1e-6)
    if rank < 2 or paces.min() <= 0:  # one network, or two that do not tell the paces apart
        paces = 1 / ratios[:, 0].mean(), 0.0
    return Machine(name, source, *map(float, paces))


@functools.cache
def t4() -> Machine:
    """The paper's machine, a Tesla T4, by the vanilla runs of Table 6."""
    steps = [(forward_work(row["model"]), 3600 * row["vanilla"] / TABLE_6)
             for row in records.reported(6)]
    return machine("a Tesla T4", "the vanilla runs of the paper's Table 6", steps)


def machines(results: str | Path = records.RESULTS,
             measured: Path = records.MEASURED) -> list[Machine]:
    """The T4, then each GPU and CPU with timed vanilla steps in fp32, or on a GPU in compiled bf16.

    They come from the records of step times under `results`, the newest of each network, but for
    those on trained weights, and from the tables *_steps.csv under `measured`.
    """
    found = {}  # name -> {network: (work, seconds an image, source)}
    for file in sorted(measured.glob("*_steps.csv")):
        for row in timing.from_csv(file):
            quick = row["precision"] == "bf16" and row["compiled"] == row["cuda_graph"] == "yes"
            if row["step"] == "vanilla" and (quick or row["precision"].startswith("fp32")):
                name = f"{row['gpu']}, {row['precision']}{', compiled' if quick else ''}"
                seconds, network = row["milliseconds"] / 1000 / int(row["batch"]), row["network"]
                found.setdefault(name, {})[network] = forward_work(network), seconds, file.name
    for record in records.timings(results, "step_time"):
        asked, hardware = record["parameters"], record["hardware"]
        vanilla = [row["seconds"]["median"] for row in record["rows"] if row["name"] == "vanilla"]
        network, width = timing.timed_network(record)
        if asked.get("trained"):
            continue  # made to compare maps, on a narrow network
        if vanilla and network in catalog.names(models) and asked["precision"] == "fp32":
            threads = asked["threads"]
            cores = f"{threads} core{'' if threads == 1 else 's'} of {hardware['cpu']}"
            work, source = forward_work(network, width or 0), f"step_time-{record['run']}"
            step = work, vanilla[0] / asked["batch"], source
            found.setdefault(hardware["gpu"] or cores, {})[network] = step
    known = [t4()]
    for name, steps in found.items():
        sources = ", ".join(dict.fromkeys(source for *_, source in steps.values()))
        known.append(machine(name, sources, [step[:2] for step in steps.values()]))
    return known


def units(cell: RunSpec) -> int:
    """The units of a cell's step by its method's options; invalid ones count as the defaults."""
    p = {**defaults(cell.notebook), **cell.parameters}
    try:
        tuned = catalog.settings(methods, p["method"], p["settings"], p["dataset"], p["model"])
        return catalog.load(methods, p["method"], **{**tuned, **p["options"]}).units()
    except (TypeError, ValueError):
        return catalog.load(methods, p["method"]).units()


def seconds(cell: RunSpec, on: Machine, held_out: bool = True) -> float:
    """Seconds that a cell takes on a machine, with the tests after its epochs or without.

    A data set that does not state its IMAGES counts as CIFAR-10.
    """
    p = parameters.settled(cell.notebook, {**defaults(cell.notebook), **cell.parameters})
    data = (catalog.stated(datasets, p["dataset"], "IMAGES")
            or catalog.stated(datasets, "cifar10", "IMAGES"))
    unit = on.unit_seconds(forward_work(p["model"], p["width"], data["height"], data["width"]))
    images = units(cell) * (p.get("train_images") or data["train"]) * p["epochs"]
    if held_out:
        images += data["held_out"] * math.ceil(p["epochs"] / p.get("test_every", 1))
    return unit * images * (1 + len(p.get("more_seeds", ())))


def hours(cell: RunSpec, on: Machine | None = None) -> float:
    """Estimated hours of a run, by default on a Tesla T4, without what `NOT_INCLUDED` names.

    A run that trains nothing counts as a tenth of an hour.
    """
    return seconds(cell, on or t4()) / 3600 if "method" in cell.parameters else BENCHMARK


def table(cells: Sequence[RunSpec], notes: Sequence[str] = (),
          results: str | Path = records.RESULTS) -> list[str]:
    """The lines of a dry run: hours of each cell on each machine, sums, and their basis."""
    known = machines(results)
    lines = [f"hours on {' | '.join(m.name for m in known)}"]
    for cell, note in zip(cells, notes or [""] * len(cells), strict=True):
        lines.append(f"{_row(hours(cell, m) for m in known)}  {cell.name}  {cell.parameters}{note}")
    lines.append(f"{_row(sum(hours(cell, m) for cell in cells) for m in known)}  in all")
    basis = f"Estimated from counted operations. {'; '.join(map(str, known))}. {NOT_INCLUDED}"
    return [*lines, basis]


def _row(values: Iterable[float]) -> str:
    return " ".join(f"{value:8.2f}" for value in values)
