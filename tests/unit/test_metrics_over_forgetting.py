"""Models that forgot too hard: the tail test and the AUC below one half."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import fisher_exact

from dlfd_dist.metrics import OverForgetting, Samples, over_forgetting
from dlfd_dist.metrics.mia import auc_over_people
from dlfd_dist.metrics.sides import Sides
from tests.fakes.scores import both_sides, draws

NO_INFORMATION = (0.4, 0.6)


def normal_losses(n: int, m: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    forget, unseen = draws(n, m, shift, seed)
    return np.exp(forget), np.exp(unseen)


def judged(
    forget: np.ndarray,
    unseen: np.ndarray,
    *,
    auc_interval: tuple[float, float] | list[float] = NO_INFORMATION,
    images: int = 1,
) -> OverForgetting:
    """Return the test of losses, of which `images` in turn are of one person."""
    sides = [
        Samples(
            {"loss": -losses}, np.zeros(len(losses), int), first + np.arange(len(losses)) // images
        )
        for losses, first in ((forget, 0), (unseen, len(forget)))
    ]
    return over_forgetting(*sides, auc_interval=auc_interval, num_permutations=199)


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 90, 0.0), (60, 90, 1.0), (40, 200, 0.5)])
def test_tail_p_value_is_that_of_fishers_exact_test(n, m, shift):
    forget, unseen = normal_losses(n, m, 3, shift)
    found = judged(forget, unseen, auc_interval=NO_INFORMATION)
    above = [
        int((side > np.quantile(np.r_[forget, unseen], 0.95)).sum()) for side in (forget, unseen)
    ]
    table = [[above[0], n - above[0]], [above[1], m - above[1]]]
    assert found.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue)
    assert (found.tail_share, found.expected_share) == (above[0] / n, sum(above) / (n + m))


def test_tail_by_hand():
    # 80 losses, the highest four in the tail, all of forgotten images: 20/80 * 19/79 * ...
    forget, unseen = np.r_[np.zeros(16), 10.0, 11.0, 12.0, 13.0], np.linspace(0, 1, 60)
    found = judged(forget, unseen)
    assert found.p_value == pytest.approx(20 / 80 * 19 / 79 * 18 / 78 * 17 / 77)
    assert (found.tail_share, found.expected_share, found.flag) == (0.2, 0.05, True)
    assert found.median_difference == pytest.approx(-0.5)
    # Without a loss in the tail on the forget side nothing speaks for it: the chance is 1.
    assert judged(unseen, forget, auc_interval=NO_INFORMATION).p_value == 1.0


def test_equal_losses_have_no_tail():
    found = judged(np.ones(50), np.ones(50), auc_interval=NO_INFORMATION)
    assert (found.tail_share, found.expected_share, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(60, 90), (300, 200)])
def test_the_tail_test_errs_no_more_often_than_it_says(n, m):
    flagged = [
        judged(*normal_losses(n, m, seed), auc_interval=NO_INFORMATION).flag for seed in range(800)
    ]
    # Level 0.025, less where counts are coarse; four standard errors of 800 draws are 0.022.
    assert 0.001 <= np.mean(flagged) <= 0.025 + 0.022


def both_tests(forget: np.ndarray, unseen: np.ndarray, images: int) -> bool:
    sides = both_sides(-forget, -unseen, images)
    _, interval = auc_over_people(-np.r_[forget, unseen], Sides.of(*sides))
    return bool(judged(np.exp(forget), np.exp(unseen), auc_interval=interval, images=images).flag)


def test_both_tests_together_err_in_about_5_percent():
    flagged = [both_tests(*draws(80, 80, 0.0, seed), 1) for seed in range(300)]
    # Four standard errors of 300 draws at 0.05 are 0.05.
    assert 0 < np.mean(flagged) <= 0.05 + 0.05


def test_equal_worlds_of_people_with_eight_images_are_seldom_called_forgotten_too_hard():
    """16 people a side, intra-class correlation .5: by images this fired in a fifth of them."""
    rng, flagged = np.random.default_rng(0), []
    for _ in range(200):
        person, image = rng.normal(0, 0.5**0.5, (2, 16, 1)), rng.normal(0, 0.5**0.5, (2, 16, 8))
        forget, unseen = (person + image).reshape(2, -1)
        flagged.append(both_tests(forget, unseen, 8))
    # Four standard errors of 200 draws at 0.05 are 0.06.
    assert np.mean(flagged) <= 0.05 + 0.06


def test_people_whose_losses_are_pushed_up_are_found():
    rng, flagged = np.random.default_rng(1), 0
    for _ in range(20):
        losses = np.exp(rng.normal(0, 0.7, (2, 40, 1)) + rng.normal(0, 0.7, (2, 40, 4)))
        losses[0, :12] *= 40
        flagged += bool(judged(*losses.reshape(2, -1), images=4).flag)
    assert flagged >= 19


def test_a_few_losses_pushed_up_are_found_though_the_attack_sees_nothing():
    flagged = 0
    for seed in range(50):
        forget, unseen = normal_losses(80, 120, seed)
        forget[:12] *= 100
        found = judged(forget, unseen, auc_interval=NO_INFORMATION)
        flagged += found.flag and "of the forget losses lie in the highest 5.0 %" in found.reason
    # 15 % of the forget losses lie far out, three times their share: hardly ever missed.
    assert flagged >= 48


def test_an_auc_wholly_below_one_half_is_forgotten_too_hard():
    losses = normal_losses(80, 120, 0)
    found = judged(*losses, auc_interval=(0.3, 0.499))
    assert found.flag
    assert found.reason == (
        "The attack ranks forgotten images below images never seen (95 % interval of its AUC "
        "over people 0.300 to 0.499)."
    )
    at_the_border = judged(*losses, auc_interval=(0.3, 0.5))
    assert (at_the_border.flag, at_the_border.reason) == (False, "")


def test_fewer_than_16_people_cannot_tell():
    found = judged(*normal_losses(15, 50, 0, 5.0), auc_interval=(0.0, 0.1))
    assert found.flag is None
    assert found.reason.startswith("15 forgotten and 50 unseen people can be compared")
    by_images = judged(*normal_losses(60, 60, 0, 5.0), auc_interval=(0.0, 0.1), images=4)
    assert by_images.flag is None


def test_over_forgetting_can_be_written_as_json():
    found = judged(*normal_losses(30, 30, 0, 3.0), auc_interval=(0.0, 0.1))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert found.flag is True
