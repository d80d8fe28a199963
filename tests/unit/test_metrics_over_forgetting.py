"""Models that forgot too hard: the tail test and the AUC below one half."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import fisher_exact

from dlfd_dist.metrics import auc, over_forgetting
from tests.fakes.scores import draws

NO_INFORMATION = (0.4, 0.6)


def normal_losses(n: int, m: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    forget, unseen = draws(n, m, shift, seed)
    return np.exp(forget), np.exp(unseen)


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 90, 0.0), (60, 90, 1.0), (40, 200, 0.5)])
def test_tail_p_value_is_that_of_fishers_exact_test(n, m, shift):
    forget, unseen = normal_losses(n, m, 3, shift)
    found = over_forgetting(forget, unseen, auc_interval=NO_INFORMATION)
    above = [
        int((side > np.quantile(np.r_[forget, unseen], 0.95)).sum()) for side in (forget, unseen)
    ]
    table = [[above[0], n - above[0]], [above[1], m - above[1]]]
    assert found.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue)
    assert (found.tail_share, found.expected_share) == (above[0] / n, sum(above) / (n + m))


def test_tail_by_hand():
    # 40 losses, the highest two in the tail, both of forgotten images: 10/40 * 9/39.
    forget, unseen = np.r_[np.zeros(8), 10.0, 11.0], np.linspace(0, 1, 30)
    found = over_forgetting(forget, unseen, auc_interval=NO_INFORMATION)
    assert found.p_value == pytest.approx(10 / 40 * 9 / 39)
    assert (found.tail_share, found.expected_share, found.flag) == (0.2, 0.05, False)
    assert found.median_difference == pytest.approx(-0.5)
    # Without a loss in the tail on the forget side nothing speaks for it: the chance is 1.
    assert over_forgetting(unseen, forget, auc_interval=NO_INFORMATION).p_value == 1.0


def test_equal_losses_have_no_tail():
    found = over_forgetting(np.ones(50), np.ones(50), auc_interval=NO_INFORMATION)
    assert (found.tail_share, found.expected_share, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(60, 90), (300, 200)])
def test_the_tail_test_errs_no_more_often_than_it_says(n, m):
    flagged = [
        over_forgetting(*normal_losses(n, m, seed), auc_interval=NO_INFORMATION).flag
        for seed in range(800)
    ]
    # Level 0.025, less where counts are coarse; four standard errors of 800 draws are 0.022.
    assert 0.001 <= np.mean(flagged) <= 0.025 + 0.022


def test_both_tests_together_err_in_about_5_percent():
    rng = np.random.default_rng(0)
    flagged = []
    for seed in range(300):
        forget, unseen = draws(80, 80, 0.0, seed)
        areas = [
            auc(*(-rng.choice(side, len(side)) for side in (forget, unseen))) for _ in range(99)
        ]
        interval = np.quantile(areas, [0.025, 0.975])
        flagged.append(
            over_forgetting(np.exp(forget), np.exp(unseen), auc_interval=interval.tolist()).flag
        )
    # Four standard errors of 300 draws at 0.05 are 0.05.
    assert 0 < np.mean(flagged) <= 0.05 + 0.05


def test_a_few_losses_pushed_up_are_found_though_the_attack_sees_nothing():
    flagged = 0
    for seed in range(50):
        forget, unseen = normal_losses(80, 120, seed)
        forget[:12] *= 100
        found = over_forgetting(forget, unseen, auc_interval=NO_INFORMATION)
        flagged += found.flag and "of the forget losses lie in the highest 5.0 %" in found.reason
    # 15 % of the forget losses lie far out, three times their share: hardly ever missed.
    assert flagged >= 48


def test_an_auc_wholly_below_one_half_is_forgotten_too_hard():
    losses = normal_losses(80, 120, 0)
    found = over_forgetting(*losses, auc_interval=(0.3, 0.499))
    assert found.flag
    assert found.reason == (
        "The attack ranks forgotten images below images never seen (95 % interval of its AUC "
        "0.300 to 0.499)."
    )
    at_the_border = over_forgetting(*losses, auc_interval=(0.3, 0.5))
    assert (at_the_border.flag, at_the_border.reason) == (False, "")


def test_an_auc_of_too_few_samples_says_nothing():
    found = over_forgetting(*normal_losses(9, 50, 0), auc_interval=(0.0, 0.1))
    assert not found.flag


def test_over_forgetting_can_be_written_as_json():
    found = over_forgetting(*normal_losses(30, 30, 0, 3.0), auc_interval=(0.0, 0.1))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert found.flag is True
