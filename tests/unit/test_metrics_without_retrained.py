"""The verdict of those who have no Retrained: gone, not shown, or still there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from dlfd_dist.metrics import without_retrained


def attack(accuracy: float, auc: float, half: float, people: int | None = 100):
    return {
        "accuracy": accuracy, "interval": [accuracy - half, accuracy + half],
        "auc": auc, "auc_interval": [auc - half, auc + half],
        "num_member_people": people, "num_nonmember_people": 4 * people if people else None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "auc", "half", "people", "verdict", "words"),
    [
        (0.50, 0.51, 0.02, 100, "gone", "within 0.05 of guessing"),
        (0.53, 0.52, 0.02, 100, "gone", "within"),
        (0.50, 0.51, 0.09, 100, "not shown", "Neither a trace"),
        (0.50, 0.57, 0.09, 100, "not shown", "an AUC of 0.570"),
        (0.50, 0.62, 0.05, 100, "still there", "an AUC of 0.620"),
        (0.61, 0.50, 0.05, 100, "still there", "an accuracy of 0.610"),
        (0.50, 0.38, 0.05, 100, "still there", "an AUC of 0.380"),
        (0.50, 0.50, 0.00, 15, "not shown", "15 people on a side cannot tell"),
        (0.90, 0.95, 0.02, 15, "not shown", "15 people"),
        (0.50, 0.50, 0.00, 16, "gone", "within"),
        (0.50, 0.50, 0.00, None, "not shown", "not known how many people"),
    ],
)
def test_one_verdict_of_three(accuracy, auc, half, people, verdict, words):
    found = without_retrained(attack(accuracy, auc, half, people))
    assert (found.verdict, words in found.reason) == (verdict, True)
    assert found.margin == 0.05


def test_gone_is_two_one_sided_tests_at_5_percent_with_the_freedom_of_the_people():
    error, freedom = 0.02, 29
    half = t.ppf(0.975, freedom) * error
    for value in np.linspace(0.5, 0.55, 11):
        found = without_retrained(attack(0.5, value, half, 30)).figures["auc"]
        assert found["within"] == (t.cdf((value - 0.55) / error, freedom) < 0.05)
        assert found["interval_90"][1] == pytest.approx(value + t.ppf(0.95, freedom) * error)
