"""Is a difference decided? One error model and one rule for every comparison in the book.

Two methods are compared seed by seed. The mean difference varies for two reasons: another seed
trains another network, and another test set would hold other images. The first error is measured by
the standard deviation over seeds; the second is binomial. Where both records say which test images
they get right, it is computed from the differences image by image, since both networks see the same
images; elsewhere the two errors are added as if they were independent, which is too large for
networks that fail on the same images, and so never decides too early.
"""
from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool

    from .schema import Record

LEAST_SEEDS = 3  # fewer decide nothing
LEVEL = 0.05  # the chance that a whole family of comparisons holds one false decision
WORDS = {1: "higher", -1: "lower", 0: "not decided"}  # of a sign


@dataclass(frozen=True)
class Quantity:
    """A number that records are compared by.

    value: record -> the number in percent, or None where the record lacks it. error: record -> the
    standard error that the finite test set gives it. correct: record -> which test images it gets
    right, or None.
    """

    value: Callable[[Record], Any]
    error: Callable[[Record], float]
    correct: Callable[[Record], Bool[np.ndarray, " n"] | None] = lambda record: None


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values.

    As text "83.25 ± 0.31 (3)".
    """

    mean: float
    std: float | None
    n: int

    @property
    def interval(self) -> float | None:
        """Half-width of the 95 % t-interval of the mean, None for a single value."""
        if self.std is None:
            return None
        t, _ = _quantiles("the t-interval")
        return float(t(self.n - 1, 1 - 0.975)) * self.std / self.n**0.5

    def __format__(self, spec: str) -> str:
        std = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:{spec or '.2f'}}{std} ({self.n})"

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Difference(Spread):
    """The Spread of a difference over `n` seeds; as text "+1.20 ± 0.31 (3)".

    test_error: the standard error that the finite test set adds to the mean.
    """

    test_error: float = 0.0

    @property
    def can_decide(self) -> bool:
        """Whether there are enough seeds, and they differ.

        A standard deviation of zero says nothing of the next seed.
        """
        return self.n >= LEAST_SEEDS and self.std is not None and self.std > 1e-6

    def half_width(self, level: float) -> float:
        """Half-width of the interval that misses the true mean difference with probability `level`.

        Each error gives a half-width of its own: the seeds by Student's t with n - 1 degrees of
        freedom, the test set, whose error is known, by the normal distribution. Their squares are
        added (Zou and Donner, 2008). Degrees of freedom by Welch and Satterthwaite would not do.
        Three seeds at times give far too small a standard deviation by chance, which that formula
        trusts most; a family of seven equal methods then holds a false decision in up to 18 % of
        cases.
        """
        if self.std is None:
            raise ValueError("one seed has no standard deviation, and so its mean no interval")
        t, normal = _quantiles("deciding a difference")
        seeds = t(self.n - 1, level / 2) * self.std / self.n**0.5
        return float(np.hypot(seeds, normal(level / 2) * self.test_error))

    @property
    def interval(self) -> float | None:
        """Half-width of the 95 % interval of this mean difference; None if it cannot decide."""
        return self.half_width(0.05) if self.can_decide else None

    @property
    def p(self) -> float:
        """Two-sided p-value of a true difference of 0; 1 where nothing can be decided.

        It is the level at which the interval just reaches 0, or 1e-300 where that is smaller.
        """
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

    def __format__(self, spec: str) -> str:
        return super().__format__(spec or "+.2f")


@dataclass(frozen=True)
class Family:
    """Differences decided together: one family in twenty at most has a false decision (Holm).

    name: what the family is, for readers, such as "the seven methods against vanilla, CIFAR-10".
    differences: label -> Difference. Those that cannot be decided count too.
    """

    name: str
    differences: Mapping[Any, Difference]

    @property
    def signs(self) -> dict[Any, int]:
        """label -> 1 where the difference is decided to be above 0, -1 below, 0 if undecided."""
        decided = holm([d.p for d in self.differences.values()])
        return {label: yes * (1 if d.mean > 0 else -1)
                for yes, (label, d) in zip(decided, self.differences.items(), strict=True)}

    def word(self, label: Hashable) -> str:
        """ "higher", "lower" or "not decided", for a table."""
        return WORDS[self.signs[label]]

    @property
    def rule(self) -> str:
        """The rule in a sentence, for a caption."""
        n = len(self.differences)
        return (f"Decided together: {self.name} ({n} {'difference' if n == 1 else 'differences'}, "
                f"Holm, {LEVEL:.0%} in all, at least {LEAST_SEEDS} seeds each).")

    @property
    def sentence(self) -> str:
        """What is decided, in a sentence, for the text below a table."""
        signs, parts = self.signs, []
        for sign, word in WORDS.items():
            labels = [label for label, found in signs.items() if found == sign]
            if labels:
                parts.append(f"{word}: {', '.join(labels)}")
        return ("; ".join(parts).capitalize() or "There is no difference to decide") + "."


@dataclass(frozen=True)
class Ranking:
    """Labels by their means, the best first, and which of them are told apart.

    ranks: label -> 1 + the number of labels that are decided to be better. Labels that are not told
    apart may share a rank. family: all differences of two labels, (one, other) -> Difference,
    decided together.
    """

    order: tuple[str, ...]
    ranks: Mapping[str, int]
    family: Family

    @functools.cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The largest sets of labels in which no two are told apart, in the order of the means.

        Two labels are in a set together exactly if they are not told apart. Labels about which
        nothing can be decided, for want of seeds, are in no set. (Piepho 2004: a compact letter
        display.)
        """
        able = {label for pair, gap in self.family.differences.items() if gap.can_decide
                for label in pair}
        groups = {tuple(label for label in self.order if label in able)} if able else set()
        for pair in (pair for pair, sign in self.family.signs.items() if sign):
            parts = {tuple(label for label in group if label != out) for group in groups
                     for out in (pair if {*pair} <= {*group} else (None,))}
            groups = {one for one in parts if not any({*one} < {*other} for other in parts)}
        place = {label: k for k, label in enumerate(self.order)}
        return tuple(sorted(groups, key=lambda group: [place[label] for label in group]))

    @property
    def decides(self) -> bool:
        """Whether any two labels are told apart."""
        return any(self.family.signs.values())

    @property
    def sentence(self) -> str:
        """What is told apart, in a sentence, for the text below a table."""
        if not self.groups:
            return "No two rows have enough seeds in common, so nothing is ranked."
        if not self.decides:
            return f"None of the {len(self.order)} rows are told apart, so they share one rank."
        groups = "; ".join(", ".join(group) for group in self.groups)
        return f"Groups within which nothing is told apart, the best first: {groups}."


def rank(by_label: Mapping[str, Sequence[Record]], quantity: Quantity, where: str = "") -> Ranking:
    """The Ranking of labels by a quantity of their records, all of one recipe.

    by_label: as `summary.runs_by_row` gives it for a recipe. Each pair is compared seed by seed,
    and all pairs are one Family, so that all of its decisions are right with 95 %. Two labels
    without three seeds in common are not told apart. where: the place of the comparison, for the
    name of the family.
    """
    means = {label: float(np.mean([quantity.value(r) for r in found]))
             for label, found in by_label.items()}
    order = tuple(sorted(means, key=lambda label: -means[label]))
    gaps = {(one, other): gap for one, other in itertools.combinations(order, 2)
            if (gap := difference(by_label[one], by_label[other], quantity))}
    family = Family(f"all pairs of {len(order)} rows{', ' if where else ''}{where}", gaps)
    ranks = dict.fromkeys(order, 1)
    for (one, other), sign in family.signs.items():
        ranks[one if sign < 0 else other] += abs(sign)
    return Ranking(order, ranks, family)


def difference(ours: Iterable[Record], theirs: Iterable[Record],
               quantity: Quantity) -> Difference | None:
    """The Difference `ours` - `theirs` over the seeds that both have; None without one.

    ValueError for two records of one seed on one side: they are of different recipes, and no pair.
    """
    return _contrast([(1, ours), (-1, theirs)], quantity)


def interaction(both: Iterable[Record], one: Iterable[Record], other: Iterable[Record],
                neither: Iterable[Record], quantity: Quantity) -> Difference | None:
    """The Difference `both` - `one` - `other` + `neither` over the seeds that all four have.

    `one` and `other` have one of two parts each. It is 0 where each part adds the same with the
    other as without it, below 0 where they do the same work. None without a shared seed.
    """
    return _contrast([(1, both), (-1, one), (-1, other), (1, neither)], quantity)


def _contrast(sides, quantity):
    """The Difference that sums sign * value over sides (sign, records), seed by seed; or None."""
    found = [(sign, _by_seed(records)) for sign, records in sides]
    seeds = sorted(set.intersection(*({*by_seed} for _, by_seed in found)))
    if not seeds:
        return None
    runs = [[(sign, by_seed[seed]) for sign, by_seed in found] for seed in seeds]
    gaps = [sum(sign * quantity.value(r) for sign, r in each) for each in runs]
    std = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None
    return Difference(float(np.mean(gaps)), std, len(gaps), _test_error(runs, quantity))


def to_reported(records: Sequence[Record], reported: float, quantity: Quantity,
                papers: int = 3) -> Difference | None:
    """The Difference between our mean and a reported mean of `papers` runs; None without records.

    The reported runs count as if they varied as ours do: the standard deviation is scaled so that
    its standard error covers both means.
    """
    if not records:
        return None
    values = [quantity.value(r) for r in records]
    n = len(values)
    std = float(np.std(values, ddof=1)) * (1 + n / papers) ** 0.5 if n > 1 else None
    one = float(np.mean([quantity.error(r) ** 2 for r in records])) ** 0.5
    return Difference(float(np.mean(values)) - reported, std, n, one * 2**0.5)


def binomial_error(accuracy: float, images: int) -> float:
    """Standard error, in percent, of an accuracy in percent on so many test images.

    It is above 0 at 0 % and 100 % too.
    """
    p = (accuracy / 100 * images + 1) / (images + 2)
    return 100 * (p * (1 - p) / images) ** 0.5


def holm(values: Sequence[float], level: float = LEVEL) -> list[int]:
    """Which p-values are decided, 0 or 1 each, if together they may err at `level` (Holm)."""
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
            raise ValueError(f"two records of {record['method']['name']} with seed "
                             f"{record['seed']}: they are of different recipes, and no pair")
        found[record["seed"]] = record
    return found


def _test_error(runs, quantity):
    """The test set's standard error of the mean of signed sums of records, (sign, record) each.

    Image by image where all know which images they get right, else as if the sides saw different
    images.
    """
    right = [[(sign, quantity.correct(r)) for sign, r in each] for each in runs]
    sizes = {-1 if known is None else len(known) for each in right for _, known in each}
    if len(sizes) == 1 and -1 not in sizes:
        # (N,), each image's gap over the seeds
        gaps = np.mean([sum(sign * known.astype(float) for sign, known in each) for each in right],
                       axis=0)
        return 100 * float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5
    squares = [sum(quantity.error(r) ** 2 for _, r in each) for each in runs]
    return float(np.mean(squares)) ** 0.5


def _quantiles(what):
    """Upper quantiles: of Student's t, (degrees of freedom, tail) -> number, and of the normal.

    what: that needs them, for the message where scipy is missing.
    """
    try:
        from scipy.special import ndtri, stdtrit
    except ImportError as error:
        raise ImportError(f"{what} needs scipy: pip install 'sagelib[book]'") from error
    return lambda freedom, tail: -stdtrit(freedom, tail), lambda tail: -ndtri(tail)
