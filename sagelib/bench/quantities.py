"""The numbers that records are compared by, each with the error that the finite test set gives
it."""

from ..evaluate.robustness import L2, LINF, PERTURBATIONS, VARIANCE
from . import records
from .statistics import Quantity, binomial_error

BUDGET = dict(linf=LINF, l2=L2, variance=VARIANCE)


def _accuracy(record):
    """Test accuracy after the last epoch, percent; None for records of other kinds."""
    return record["final"]["accuracy"] if "final" in record else None


ACCURACY = Quantity(
    _accuracy,
    lambda record: binomial_error(_accuracy(record), record["dataset"]["test"]),
    lambda record: records.correct_images(record),
)


def perturbed(name, convention, images=10_000):
    """Accuracy on perturbed test images: `name` is gaussian, fgsm or fgm, or "mean" for the mean of
    the three, under a convention for the budget, such as "pixels, clamped". Its value is None
    without that evaluation in the record."""

    def values(record):
        found = records.evaluation(record, "robustness", **BUDGET, images=images)
        return found and [
            found["perturbed"][convention][n]
            for n in (PERTURBATIONS if name == "mean" else (name,))
        ]

    def value(record):
        found = values(record)
        return sum(found) / len(found) if found else None

    def error(record):  # of a mean over the same images: at most the mean of the errors
        found = values(record)
        return sum(binomial_error(v, images) for v in found) / len(found)

    return Quantity(value, error)


def few_shot(ways=5, shots=5, distance="cosine"):
    """Accuracy on episodes of new classes; its error is that of the draw of episodes. None for
    other records."""

    def entry(record):
        return next(
            (
                e
                for e in record.get("episodes", ())
                if (e["ways"], e["shots"], e["distance"]) == (ways, shots, distance)
            ),
            None,
        )

    def value(record):
        found = entry(record)
        return found and found["accuracy"]

    return Quantity(value, lambda record: entry(record)["interval"] / 1.96)
