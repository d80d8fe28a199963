"""A mean with its error, over people or over anything else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dlfd_dist.metrics import Estimate, people_mean

VALUES = np.random.default_rng(0).normal(0.4, 1, 12)
FOUND = Estimate(float(VALUES.mean()), float(stats.sem(VALUES)), 11)


def test_interval_and_p_are_those_of_the_t_test():
    wanted = stats.ttest_1samp(VALUES, 0)
    assert pytest.approx(wanted.pvalue) == FOUND.p
    assert FOUND.interval() == pytest.approx(list(wanted.confidence_interval(0.95)))
    assert FOUND.interval(0.9) == pytest.approx(list(wanted.confidence_interval(0.9)))


@pytest.mark.parametrize("margin", [0.05, 0.6, 1.5])
def test_equivalence_is_two_one_sided_tests_and_that_the_90_percent_interval_lies_within(margin):
    one_sided = [
        stats.ttest_1samp(VALUES, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(VALUES, margin, alternative="less").pvalue,
    ]
    assert FOUND.p_equivalent(margin) == pytest.approx(max(one_sided))
    low, high = FOUND.interval(0.9)
    assert (FOUND.p_equivalent(margin) < 0.05) == (-margin < low and high < margin)


@pytest.mark.parametrize(("freedom", "level"), [(4, 0.05), (4, 0.05 / 12), (30, 0.0125)])
def test_the_detectable_difference_is_found_four_times_in_five(freedom, level):
    least = Estimate(0.0, 0.7, freedom).detectable(level)
    limit = stats.t.ppf(1 - level / 2, freedom)
    shift = least / 0.7
    power = stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_what_does_not_vary_is_what_it_is():
    nothing, something = Estimate(0.0, 0.0, 4), Estimate(0.1, 0.0, 4)
    assert (nothing.p, nothing.p_equivalent(0.03)) == (1.0, 0.0)
    assert (something.p, something.p_equivalent(0.03)) == (0.0, 1.0)


def test_people_count_once_however_many_images_they_have():
    people = np.repeat(np.arange(12), 5)
    found = people_mean(np.repeat(VALUES, 5), people)
    assert found is not None
    assert (found.mean, found.error) == pytest.approx((FOUND.mean, FOUND.error))
    assert found.freedom == 11
    assert people_mean(VALUES, np.zeros(12)) is None
    assert people_mean(VALUES[:0], people[:0]) is None


def test_the_interval_over_people_covers_where_that_over_images_does_not():
    """Equal worlds of 16 people with 8 images, half of the variance a person's own."""
    rng = np.random.default_rng(1)
    people, images = np.repeat(np.arange(16), 8), np.arange(128)
    covered = np.zeros(2)
    for _ in range(600):
        values = rng.normal(size=16)[people] + rng.normal(size=128)
        for k, whose in enumerate((people, images)):
            found = people_mean(values, whose)
            assert found is not None
            low, high = found.interval()
            covered[k] += low <= 0 <= high
    assert 0.925 <= covered[0] / 600 <= 0.975
    assert covered[1] / 600 < 0.7
