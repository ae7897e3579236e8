"""The numbers that records are compared by, with the error that the finite test set gives each."""
from __future__ import annotations

from typing import TYPE_CHECKING

from ..evaluate.robustness import L2, LINF, PERTURBATIONS, VARIANCE
from . import records, schema
from .statistics import Quantity, binomial_error

if TYPE_CHECKING:
    from .schema import Record

BUDGET = dict(linf=LINF, l2=L2, variance=VARIANCE)


def _accuracy(record: Record) -> float | None:
    """Test accuracy after the last epoch, percent; None for records of other kinds."""
    return record["final"]["accuracy"] if "final" in record else None


def _accuracy_error(record: Record) -> float:
    return binomial_error(record["final"]["accuracy"], record["dataset"]["test"])


ACCURACY = Quantity(_accuracy, _accuracy_error, schema.correct_images)


def perturbed(name: str, convention: str, images: int = 10_000) -> Quantity:
    """The Quantity "accuracy on perturbed test images"; its value is None without that evaluation.

    name: gaussian, fgsm or fgm, or "mean" for the mean of the three. convention: that of the
    budget, such as "pixels, clamped".
    """
    asked = PERTURBATIONS if name == "mean" else (name,)

    def values(record):
        found = records.evaluation(record, "robustness", **BUDGET, images=images)
        return [found["perturbed"][convention][n] for n in asked] if found else []

    def value(record):
        found = values(record)
        return sum(found) / len(found) if found else None

    def error(record):  # of a mean over the same images: at most the mean of the errors
        found = [binomial_error(v, images) for v in values(record)]
        return sum(found) / len(found)

    return Quantity(value, error)


def few_shot(ways: int = 5, shots: int = 5, distance: str = "cosine") -> Quantity:
    """The Quantity "accuracy on episodes of new classes"; its value is None for other records.

    Its error is that of the draw of episodes.
    """
    asked = (ways, shots, distance)

    def entry(record):
        found = record.get("episodes", ())
        return next((e for e in found if (e["ways"], e["shots"], e["distance"]) == asked), {})

    return Quantity(lambda record: entry(record).get("accuracy"),
                    lambda record: entry(record)["interval"] / 1.96)
