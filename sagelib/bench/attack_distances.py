"""How far the readings of the paper's attacks are from its Tables 4 and 5.

Networks of another recipe have another clean accuracy, so shares of it are compared: what a network
gets right after a perturbation, divided by what it gets right before.
"""
from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..evaluate.attack_readings import FGM, LABELS, SOURCES, name
from . import records
from .quantities import BUDGET

if TYPE_CHECKING:
    from .schema import Record


@dataclass(frozen=True)
class Distance:
    """One reading and its distances from the printed shares, percentage points, by method.

    points: perturbation -> method -> distance; the noise counts in the reading's unit.
    """

    source: str
    label: str
    unit: str
    length: str
    points: Mapping[str, Mapping[str, float]]

    @property
    def reading(self) -> str:
        """The reading in words, as records name it."""
        return name(self.source, self.label, self.unit, self.length)

    def words(self, kind: str) -> str:
        """Mean and, in brackets, largest distance over the methods under one perturbation."""
        points = self.points[kind].values()
        return f"{statistics.fmean(points):.1f} ({max(points):.1f})"

    @property
    def mean(self) -> float:
        """The mean over the three perturbations of the mean over the methods."""
        return statistics.fmean(statistics.fmean(each.values()) for each in self.points.values())


def distances(runs: Mapping[str, Sequence[Record]], printed: Mapping[str, Mapping[str, float]],
              clean: Mapping[str, float]) -> list[Distance]:
    """The Distance of every reading that all the evaluated methods have, the nearest first.

    runs: method -> its records of one recipe; those without the evaluation "attack_readings" with
    the paper's budgets are left out, and methods without a printed number. printed: perturbation ->
    method -> the paper's accuracy, percent; clean: method -> the paper's accuracy on clean images.
    A method's share is the mean over its seeds.
    """
    evaluated = {m: [e for r in rs if (e := records.evaluation(r, "attack_readings", **BUDGET))]
                 for m, rs in runs.items() if m in clean}
    evaluated = {m: found for m, found in evaluated.items() if found}

    def apart(kind, reading):
        """method -> distance, of those that have the reading."""
        found = {}
        for m, outcomes in evaluated.items():
            shares = [100 * e[kind][reading] / e["clean"] for e in outcomes if reading in e[kind]]
            if shares:
                said = 100 * printed[kind][m] / clean[m]
                found[m] = abs(statistics.fmean(shares) - said)
        return found

    all_readings = []
    for source, label, (unit, length) in itertools.product(SOURCES, LABELS, FGM):
        points = {"fgsm": apart("fgsm", name(source, label, unit)),
                  "fgm": apart("fgm", name(source, label, unit, length)),
                  "gaussian": apart("gaussian", unit)}
        if evaluated and all(each.keys() == evaluated.keys() for each in points.values()):
            all_readings.append(Distance(source, label, unit, length, points))
    return sorted(all_readings, key=lambda distance: distance.mean)
