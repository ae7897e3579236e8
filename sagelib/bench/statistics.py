"""Is a difference decided? One error model and one rule for every comparison in the book.

Two methods are compared seed by seed. The mean difference varies for two reasons: another seed
trains another network, and another test set would hold other images. The first error is measured by
the standard deviation over seeds; the second is binomial. Where both records say which test images
they get right, it is computed from the differences image by image, since both networks see the same
images; elsewhere the two errors are added as if they were independent, which is too large for
networks that fail on the same images, and so never decides too early.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEAST_SEEDS = 3  # fewer decide nothing
LEVEL = 0.05  # the chance that a whole family of comparisons holds one false decision


@dataclass(frozen=True)
class Quantity:
    """A number that records are compared by.

    value: record -> the number in percent, or None where the record lacks it. error: record -> the
    standard error that the finite test set gives it. correct: record -> bool array (N,), which test
    images it gets right, or None.
    """

    value: Callable
    error: Callable
    correct: Callable = lambda record: None


@dataclass(frozen=True)
class Difference:
    """A mean difference over `n` seeds: its sample standard deviation over seeds (None for one
    seed), and the standard error that the finite test set adds to the mean. As text "+1.20 ± 0.31
    (3)", the standard deviation after ±."""

    mean: float
    std: float | None
    n: int
    test_error: float = 0.0

    @property
    def standard_error(self):
        """Standard error of the mean difference, seeds and test set combined; None for one seed."""
        return None if self.std is None else (self.std**2 / self.n + self.test_error**2) ** 0.5

    @property
    def can_decide(self):
        """Whether there are enough seeds, and they differ: a standard deviation of zero says
        nothing of the next."""
        return self.n >= LEAST_SEEDS and self.std > 1e-6

    def half_width(self, level):
        """Half-width of the interval that misses the true mean difference with probability `level`.

        Each error gives a half-width of its own: the seeds by Student's t with n - 1 degrees of
        freedom, the test set, whose error is known, by the normal distribution. Their squares are
        added (Zou and Donner, 2008). Degrees of freedom by Welch and Satterthwaite would not do.
        Three seeds at times give far too small a standard deviation by chance, which that formula
        trusts most; a family of seven equal methods then holds a false decision in up to 18 % of
        cases.
        """
        t, normal = _quantiles()
        seeds = t(self.n - 1, level / 2) * self.std / self.n**0.5
        return float(np.hypot(seeds, normal(level / 2) * self.test_error))

    @property
    def interval(self):
        """Half-width of the 95 % interval of the mean difference, on its own; None where nothing
        can be decided."""
        return self.half_width(0.05) if self.can_decide else None

    @property
    def p(self):
        """Two-sided p-value of a true difference of 0: the level at which the interval just reaches
        0, or 1e-300 where it is smaller; 1 where nothing can be decided."""
        if not self.can_decide:
            return 1.0
        low, high = math.log(1e-300), 0.0  # logarithms of two levels; a higher one is narrower
        for _ in range(60):
            middle = (low + high) / 2
            if self.half_width(math.exp(middle)) < abs(self.mean):
                high = middle
            else:
                low = middle
        return math.exp(high)

    def __format__(self, spec):
        mean = format(self.mean, spec or "+.2f")
        return f"{mean} ({self.n})" if self.std is None else f"{mean} ± {self.std:.2f} ({self.n})"

    def __str__(self):
        return format(self)


@dataclass(frozen=True)
class Family:
    """Differences that are decided together: at most one family in twenty holds a false decision
    (Holm's procedure).

    name: what the family is, for readers, such as "the seven methods against vanilla, CIFAR-10".
    differences: label -> Difference. Those that cannot be decided count too.
    """

    name: str
    differences: dict

    @property
    def signs(self):
        """label -> 1 where the difference is decided to be above 0, -1 below, 0 where it is not
        decided."""
        decided = holm([d.p for d in self.differences.values()])
        return {
            label: yes * (1 if d.mean > 0 else -1)
            for yes, (label, d) in zip(decided, self.differences.items(), strict=True)
        }

    def word(self, label):
        """ "higher", "lower" or "not decided", for a table."""
        return {1: "higher", -1: "lower", 0: "not decided"}[self.signs[label]]

    @property
    def rule(self):
        """The rule in a sentence, for a caption."""
        return (
            f"Decided together: {self.name} ({len(self.differences)} "
            f"{'difference' if len(self.differences) == 1 else 'differences'}, Holm, {LEVEL:.0%} "
            f"in all, at least {LEAST_SEEDS} seeds each)."
        )

    @property
    def sentence(self):
        """What is decided, in a sentence, for the text below a table."""
        parts = []
        for sign, word in ((1, "higher"), (-1, "lower"), (0, "not decided")):
            labels = [label for label, s in self.signs.items() if s == sign]
            parts += [f"{word}: {', '.join(labels)}"] if labels else []
        return (
            "; ".join(parts).capitalize() if parts else "There is no difference to decide"
        ) + "."


def difference(ours, theirs, quantity):
    """The Difference `ours` - `theirs` of two lists of records over the seeds that both have; None
    without one.

    ValueError for two records of one seed on one side: they are of different recipes, and no pair.
    """
    sides = [_by_seed(side) for side in (ours, theirs)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        return None
    pairs = [tuple(side[seed] for side in sides) for seed in seeds]
    gaps = [quantity.value(a) - quantity.value(b) for a, b in pairs]
    std = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None
    return Difference(float(np.mean(gaps)), std, len(gaps), _test_error(pairs, quantity))


def to_reported(records, reported, quantity, papers=3):
    """The Difference of our mean and a reported mean of `papers` runs, as if those varied as ours
    do; None without records. Its standard deviation is scaled so that its standard error covers
    both means."""
    if not records:
        return None
    values = [quantity.value(r) for r in records]
    n = len(values)
    std = float(np.std(values, ddof=1)) * (1 + n / papers) ** 0.5 if n > 1 else None
    one = float(np.mean([quantity.error(r) ** 2 for r in records])) ** 0.5
    return Difference(float(np.mean(values)) - reported, std, n, one * 2**0.5)


def binomial_error(accuracy, images):
    """Standard error of an accuracy in percent on so many test images, in percent; above 0 at 0 %
    and 100 % too."""
    p = (accuracy / 100 * images + 1) / (images + 2)
    return 100 * (p * (1 - p) / images) ** 0.5


def holm(values, level=LEVEL):
    """Holm's procedure: which p-values are decided if all together may err at most at `level`; 0 or
    1 each."""
    decided = [0] * len(values)
    for rank, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[k] >= level / (len(values) - rank):
            break
        decided[k] = 1
    return decided


def _by_seed(records):
    found = {}
    for record in records:
        if record["seed"] in found:
            raise ValueError(
                f"two records of {record['method']['name']} with seed {record['seed']}: they are "
                "of different recipes, and no pair"
            )
        found[record["seed"]] = record
    return found


def _test_error(pairs, quantity):
    """The test set's standard error of the mean difference over pairs of records: image by image
    where all know which images they get right, else as if the two sides saw different images."""
    right = [[quantity.correct(r) for r in pair] for pair in pairs]
    if (
        all(known is not None for pair in right for known in pair)
        and len({len(k) for p in right for k in p}) == 1
    ):
        gaps = np.mean(
            [a.astype(float) - b for a, b in right], axis=0
        )  # (N,), each image's gap over the seeds
        return 100 * float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5
    return (
        float(np.mean([quantity.error(a) ** 2 + quantity.error(b) ** 2 for a, b in pairs])) ** 0.5
    )


def _quantiles():
    """Upper quantiles: of Student's t, (degrees of freedom, tail) -> number, and of the normal."""
    try:
        from scipy.special import ndtri, stdtrit
    except ImportError as error:
        raise ImportError(
            "deciding a difference needs scipy: pip install 'sagelib[book]'"
        ) from error
    return lambda freedom, tail: -stdtrit(freedom, tail), lambda tail: -ndtri(tail)
