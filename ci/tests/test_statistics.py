"""Whether a difference is decided: the rule and the standard error against simulations and slow
formulas, Holm by hand, and what must never decide anything."""

import itertools
import math

import numpy as np
import oracles
import pytest
from scipy import stats

from sagelib.bench import quantities
from sagelib.bench.statistics import (
    LEAST_SEEDS,
    Difference,
    Family,
    Quantity,
    Ranking,
    binomial_error,
    difference,
    holm,
    interaction,
    rank,
    to_reported,
)


def record(seed, value, right=None, method="sage"):
    return {"method": {"name": method}, "seed": seed, "x": value, "right": right}


X = Quantity(lambda r: r["x"], lambda r: 0.3, lambda r: r["right"])


def test_without_an_error_of_the_test_set_the_rule_is_students():
    gaps = [0.3, 0.1, 0.4, -0.05]
    found = Difference(float(np.mean(gaps)), float(np.std(gaps, ddof=1)), 4)
    low, high = stats.t.interval(0.95, 3, np.mean(gaps), stats.sem(gaps))
    assert found.mean - found.interval == pytest.approx(low)
    assert found.mean + found.interval == pytest.approx(high)
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_without_an_error_of_seeds_the_rule_is_the_normal():
    only_images = Difference(0.5, 2e-6, 3, test_error=0.2)
    assert only_images.interval == pytest.approx(1.959964 * 0.2, rel=1e-4)
    assert only_images.p == pytest.approx(2 * stats.norm.sf(2.5), rel=1e-4)


@pytest.mark.parametrize("level", [0.2, 0.05, 0.001])
def test_both_half_widths_are_added_as_squares(level):
    found = Difference(-0.9, 0.3, 3, test_error=0.25)
    slow = oracles.half_width(level, 0.3 / math.sqrt(3), 3, 0.25)
    assert found.half_width(level) == pytest.approx(slow)
    assert found.interval == found.half_width(0.05)


def test_p_is_the_level_at_which_the_interval_reaches_zero():
    found = Difference(-0.9, 0.3, 3, test_error=0.25)
    assert found.half_width(found.p) == pytest.approx(0.9)
    assert Difference(0.0, 0.3, 3).p == pytest.approx(1)
    assert Difference(1e9, 2e-6, 60).p < 1e-200


def test_differences_are_taken_seed_by_seed():
    ours = [record(s, x) for s, x in ((0, 70.0), (1, 75.0), (2, 80.0))]
    base = [record(s, x, method="vanilla") for s, x in ((2, 79.0), (1, 71.0), (5, 10.0))]
    found = difference(ours, base, X)
    assert (found.mean, found.n) == (2.5, 2) and found.std == pytest.approx(np.std([4, 1], ddof=1))
    assert difference(ours[:1], base, X) is None and str(found) == "+2.50 ± 2.12 (2)"
    assert f"{difference(ours[1:2], base, X):.1f}" == "4.0 (1)"
    with pytest.raises(ValueError, match="two records of sage with seed 0"):
        difference([*ours, ours[0]], base, X)


def test_the_errors_of_seeds_and_test_set_are_kept_apart():
    ours = [record(s, x) for s, x in enumerate((71.0, 75.0, 80.0))]
    base = [record(s, 70.0) for s in range(3)]
    found = difference(ours, base, X)
    seeds, images = np.std([1, 5, 10], ddof=1) / math.sqrt(3), math.hypot(0.3, 0.3)
    assert found.test_error == pytest.approx(images)
    assert found.std / 3**0.5 == pytest.approx(seeds)


def test_on_the_same_images_the_test_error_is_that_of_the_differences():
    """Against a loop over images; and smaller than for independent images where both fail on the
    same."""
    g = np.random.default_rng(0)
    hard = g.random(500)
    ours, base = ([record(s, None, hard * scale + 0.1 * g.random(500) < 0.7) for s in range(3)]
                  for scale in (0.9, 1.0))
    for r in (*ours, *base):
        r["x"] = 100 * r["right"].mean()
    binomial = Quantity(X.value, lambda r: binomial_error(r["x"], 500), X.correct)
    found = difference(ours, base, binomial)
    mean, error = oracles.error_of_paired_images(*([r["right"] for r in s] for s in (ours, base)))
    assert found.mean == pytest.approx(100 * mean)
    assert found.test_error == pytest.approx(100 * error)
    apart = difference([{**r, "right": None} for r in ours], base, binomial)
    assert found.test_error < 0.8 * apart.test_error


def test_an_interaction_is_taken_seed_by_seed_and_image_by_image():
    """Of four sides, over the seeds that all have; its error of the test set against a loop."""
    g = np.random.default_rng(1)
    right = g.random((4, 3, 200)) < np.array([0.9, 0.8, 0.75, 0.5])[:, None, None]
    sides = [[record(s, 100 * each.mean(), each) for s, each in enumerate(side)] for side in right]
    both, one, other, neither = sides
    found = interaction(both, one[:2], [*other, record(7, 1.0)], neither, X)
    by_seed = [sum(sign * side[s]["x"] for sign, side in zip((1, -1, -1, 1), sides, strict=True))
               for s in (0, 1)]
    assert found.n == 2 and found.mean == pytest.approx(np.mean(by_seed))
    assert found.std == pytest.approx(np.std(by_seed, ddof=1))
    gaps = [np.mean([float(right[0][s][i]) - right[1][s][i] - right[2][s][i] + right[3][s][i]
                     for s in (0, 1)]) for i in range(200)]
    assert found.test_error == pytest.approx(100 * np.std(gaps, ddof=1) / 200**0.5)
    apart = interaction(*([{**r, "right": None} for r in side] for side in sides), X)
    assert apart.test_error == pytest.approx(2 * 0.3) and apart.n == 3
    assert interaction(both, one, other, [], X) is None
    alike = interaction(both, one, one, both, X)
    assert alike.mean == pytest.approx(2 * (np.mean([r["x"] for r in both])
                                            - np.mean([r["x"] for r in one])))


@pytest.mark.parametrize("gaps", [[4.94, 4.94], [4.94, 4.94, 4.94], [4.9, 5.0], [5.0]])
def test_equal_differences_and_few_seeds_decide_nothing(gaps):
    """SAGE minus CutMix was 4.94 in both seeds, which a plain t-test takes for p = 1e-15."""
    found = difference([record(k, 70 + gap) for k, gap in enumerate(gaps)],
                       [record(k, 70.0) for k in range(9)], X)
    assert found.p == 1.0 and found.interval is None
    assert Family("one", {"a": found}).signs == {"a": 0}


@pytest.mark.parametrize("test_error, by_seed, plain", [
    (0.03, 0.2, 0.25), (0.2, 0.2, 0.5), (0.4 * 2**0.5, 0.15, 0.9)])
def test_at_most_one_family_of_equal_methods_in_twenty_holds_a_false_decision(
        test_error, by_seed, plain):
    """Seven methods that equal vanilla, three seeds with a standard deviation of `by_seed`, one
    test set for all, accuracies rounded to 0.01. A t-test of the seeds alone decides one of them
    wrongly in more than the share `plain` of the families."""
    draw, sets, wrong = np.random.default_rng(0), 1000, 0
    by_test_set = draw.normal(0, test_error / 2**0.5, (sets, 8, 1))
    accuracy = np.round(95 + by_test_set + draw.normal(0, by_seed, (sets, 8, 3)), 2)
    gaps = accuracy[:, 1:] - accuracy[:, :1]
    means, stds = gaps.mean(2), gaps.std(2, ddof=1)
    for mean, std in zip(means.tolist(), stds.tolist(), strict=True):
        pairs = enumerate(zip(mean, std, strict=True))
        family = Family("equal", {k: Difference(m, s, 3, test_error) for k, (m, s) in pairs})
        wrong += any(family.signs.values())
    assert wrong / sets < 0.05
    assert (np.abs(means) * 3**0.5 > stats.t.ppf(0.975, 2) * stds).any(1).mean() > plain


def test_a_true_difference_is_found():
    noise = np.random.default_rng(1).normal(0, 0.1, (2, 5))
    ours, base = ([record(k, x) for k, x in enumerate(mean + row)]
                  for mean, row in zip((93.0, 90.0), noise, strict=True))
    family = Family("one against the other",
                    {"up": difference(ours, base, X), "down": difference(base, ours, X)})
    assert family.signs == {"up": 1, "down": -1}
    assert family.word("up") == "higher" and family.word("down") == "lower"
    assert family.sentence == "Higher: up; lower: down."
    assert "one against the other (2 differences, Holm, 5% in all" in family.rule


def test_holm_by_hand():
    p = [0.001, 0.2, 0.012, 0.013, 0.04]
    assert holm(p) == [1, 0, 1, 1, 0]  # below 0.05 / 5, / 4, / 3; 0.04 is above 0.05 / 2
    assert holm([0.02, 0.03, 0.04]) == [0, 0, 0] and holm([]) == []


def test_binomial_error_is_that_of_a_share():
    assert binomial_error(80.0, 10_000) == pytest.approx(100 * math.sqrt(0.8 * 0.2 / 10_000),
                                                         rel=1e-3)
    draws = np.random.default_rng(0).binomial(400, 0.9, 20_000) / 4
    assert binomial_error(90.0, 400) == pytest.approx(np.std(draws), rel=0.03)
    assert binomial_error(100.0, 100) > 0 < binomial_error(0.0, 100)


def test_our_mean_beside_the_papers():
    values = [95.0, 95.3, 95.1, 95.4]
    found = to_reported([record(k, v) for k, v in enumerate(values)], 95.0, X)
    error = math.hypot(np.std(values, ddof=1) * math.sqrt(1 / 4 + 1 / 3), 0.3 * math.sqrt(2))
    assert found.mean == pytest.approx(0.2)
    assert math.hypot(found.std / found.n**0.5, found.test_error) == pytest.approx(error)
    assert to_reported([], 95.0, X) is None and to_reported([record(0, 99.0)], 90.0, X).p == 1.0


EPISODES = dict(ways=5, shots=5, distance="cosine", accuracy=67.0, interval=0.6)
FEW_SHOT = {"episodes": [{**EPISODES, "shots": 1, "accuracy": 50.0}, EPISODES]}
TRAINED = {"final": {"accuracy": 90.0}}
ATTACKED = {**TRAINED, "dataset": {"test": 10_000}, "evaluations": [{
    "what": "robustness", "parameters": {**quantities.BUDGET, "images": 10_000},
    "results": {"perturbed": {"pixels, clamped": {"gaussian": 20.0, "fgsm": 30.0, "fgm": 40.0}}}}]}


@pytest.mark.parametrize("quantity, record, value, error", [
    (quantities.few_shot(), FEW_SHOT, 67.0, 0.6 / 1.96),
    (quantities.perturbed("fgsm", "pixels, clamped"), ATTACKED, 30.0, binomial_error(30, 10_000)),
    (quantities.perturbed("mean", "pixels, clamped"), ATTACKED, 30.0,
     sum(binomial_error(v, 10_000) for v in (20, 30, 40)) / 3),
    (quantities.ACCURACY, ATTACKED, 90.0, binomial_error(90.0, 10_000)),
], ids=["few-shot", "FGSM", "mean of the perturbations", "accuracy"])
def test_quantities_read_records(quantity, record, value, error):
    assert quantity.value(record) == value and quantity.error(record) == pytest.approx(error)


@pytest.mark.parametrize("quantity, record", [
    (quantities.few_shot(), TRAINED), (quantities.perturbed("fgm", "pixels, clamped"), TRAINED),
    (quantities.ACCURACY, FEW_SHOT)], ids=["few-shot", "FGM", "accuracy"])
def test_quantities_of_other_records_are_none(quantity, record):
    assert quantity.value(record) is None
    assert quantities.ACCURACY.correct(ATTACKED) is None


def test_a_family_without_differences_says_so():
    none, one = Family("none", {}), Family("a", {"sage": Difference(1.0, None, 1)})
    assert none.sentence == "There is no difference to decide." and none.signs == {}
    assert one.sentence == "Not decided: sage." and "1 difference, Holm" in one.rule


def runs(mean, *noise):
    """Records of seeds 0, 1, … around a mean."""
    return [record(seed, mean + shift) for seed, shift in enumerate(noise)]


def test_ranks_and_groups_by_hand():
    """Neighbours 2 points apart are not told apart at this noise, those 4 points apart are."""
    noise = {"a": (0.1, -0.1, 0.0, 0.05), "b": (-0.1, 0.1, 0.02, 0.0), "c": (0.0, 0.05, -0.1, 0.1),
             "d": (0.05, 0.0, 0.1, -0.1)}
    means = {"d": 90.0, "b": 94.0, "a": 94.3, "c": 88.0}
    found = rank({label: runs(means[label], *noise[label]) for label in noise}, X)
    assert found.order == ("a", "b", "d", "c") and found.decides
    assert len(found.family.differences) == 6
    decided = {pair for pair, sign in found.family.signs.items() if sign}
    assert decided == {pair for pair in found.family.differences if set(pair) != {"a", "b"}}
    assert found.ranks == {"a": 1, "b": 1, "d": 3, "c": 4}
    assert found.groups == (("a", "b"), ("d",), ("c",))


def test_groups_overlap_where_only_the_ends_are_told_apart():
    wide = Quantity(lambda r: r["x"], lambda r: 0.5)
    found = rank({"low": runs(90, 0, 0.01, -0.01), "middle": runs(91, 0.01, 0, -0.01),
                  "high": runs(93, -0.01, 0, 0.01)}, wide)
    assert found.groups == (("high",), ("middle", "low"))
    near = rank({"low": runs(90, 0, 0.01, -0.01), "middle": runs(90.9, 0.01, 0, -0.01),
                 "high": runs(91.8, -0.01, 0, 0.01)}, wide)
    assert near.groups == (("high", "middle"), ("middle", "low"))
    assert near.ranks == {"high": 1, "middle": 1, "low": 2}


@pytest.mark.parametrize("by_label", [
    {}, {"a": runs(90, 0.1, -0.1, 0)}, {"a": runs(90, 0, 0.1), "b": runs(50, 0.1, 0)},
    {"a": runs(90, 0, 0.1, -0.1), "b": [record(seed, 50 + seed / 9) for seed in (7, 8, 9)]}],
    ids=["none", "one", "two seeds", "other seeds"])
def test_what_cannot_be_told_apart_shares_a_rank(by_label):
    found = rank(by_label, X, "CIFAR-10")
    assert set(found.ranks.values()) <= {1} and not found.decides
    assert found.groups == () and "nothing is ranked" in found.sentence


def gap_of(decided, can=True):
    """A difference of two labels, for the first where `decided` is 1, for the second where -1."""
    return Difference(50.0 * decided, 0.1 if can else None, LEAST_SEEDS if can else 1)


def made(order, apart=(), cannot=()):
    """A Ranking of letters in which the first of each pair of `apart` is decided to be better;
    nothing can be decided about those in `cannot`."""
    gaps = {pair: gap_of("".join(pair) in apart, not {*pair} & {*cannot})
            for pair in itertools.combinations(order, 2)}
    ranks = {label: 1 + sum(pair[1] == label for pair in apart) for label in order}
    return Ranking(tuple(order), ranks, Family("made", gaps))


def slow_groups(order, apart, cannot=()):
    """All sets in which no pair is told apart, but for those inside another one."""
    able = [label for label in order if label not in cannot]
    fine = [{*chosen} for size in range(1, len(able) + 1)
            for chosen in itertools.combinations(able, size)
            if not any({*pair} <= {*chosen} for pair in apart)]
    return {"".join(sorted(s)) for s in fine if not any(s < other for other in fine)}


@pytest.mark.parametrize("order, apart, cannot, groups", [
    ("abc", [], "", ["abc"]), ("abc", ["ac"], "", ["ab", "bc"]),
    ("abc", ["ab", "ac", "bc"], "", ["a", "b", "c"]), ("abc", [], "abc", []),
    ("abc", ["ab"], "", ["ac", "bc"]),  # the last has much noise
    ("abcd", ["ac"], "d", ["ab", "bc"]), ("abcd", ["ad", "bd", "ac"], "", ["ab", "bc", "cd"])])
def test_groups_by_hand(order, apart, cannot, groups):
    found = made(order, apart, cannot).groups
    assert ["".join(group) for group in found] == groups


def test_two_methods_share_a_group_exactly_if_they_are_not_told_apart():
    random = np.random.default_rng(0)
    for _ in range(60):
        order = "abcdefg"[:random.integers(2, 8)]
        pairs = ["".join(pair) for pair in itertools.combinations(order, 2)]
        apart = [pair for pair in pairs if random.random() < 0.4]
        found = ["".join(group) for group in made(order, apart).groups]
        assert {*found} == slow_groups(order, apart) and len({*found}) == len(found)
        for pair in pairs:
            assert (pair in apart) != any({*pair} <= {*group} for group in found)
