"""The rule for differences against known answers, and how often it decides between methods that are
equal."""

import math

import numpy as np
import oracles
import pytest
from scipy import stats

from sagelib.bench.statistics import Difference, Family


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


def test_p_is_the_level_at_which_the_interval_reaches_zero():
    found = Difference(-0.9, 0.3, 3, test_error=0.25)
    assert found.half_width(found.p) == pytest.approx(0.9)
    assert Difference(0.0, 0.3, 3).p == pytest.approx(1)
    assert Difference(1e9, 2e-6, 60).p < 1e-200


@pytest.mark.parametrize("test_error", [0.03, 0.2])
def test_at_most_one_family_of_equal_methods_in_twenty_holds_a_false_decision(test_error):
    """Seven methods that equal vanilla, three seeds of standard deviation 0.2, accuracies rounded
    to 0.01."""
    draw, sets, wrong = np.random.default_rng(0), 1000, 0
    # the same for all seeds of a method
    by_test_set = draw.normal(0, test_error / 2**0.5, (sets, 8, 1))
    accuracy = np.round(95 + by_test_set + draw.normal(0, 0.2, (sets, 8, 3)), 2)
    gaps = accuracy[:, 1:] - accuracy[:, :1]
    for mean, std in zip(gaps.mean(2).tolist(), gaps.std(2, ddof=1).tolist(), strict=True):
        pairs = enumerate(zip(mean, std, strict=True))
        family = Family("equal", {k: Difference(m, s, 3, test_error) for k, (m, s) in pairs})
        wrong += any(family.signs.values())
    assert wrong / sets < 0.07  # 5 % and three standard errors of 1,000 sets
