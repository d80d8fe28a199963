"""Equivalence of forgotten people to strangers: two-sided, judged by strangers, over people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from dlfd_dist.metrics import Equivalence, Samples, auc, equivalence
from dlfd_dist.metrics import equivalence as function
from dlfd_dist.metrics.equivalence import _Against

WORDS = ("confidence", "entropy")


def side(num_people: int, rng: np.random.Generator, shift: float = 0.0, images: int = 4) -> Samples:
    """Return images of people whose confidences agree for the most part; entropy says nothing."""
    people = np.repeat(np.arange(num_people), images)
    own = rng.normal(size=num_people)[people]
    scores = 0.9 * own + 0.44 * rng.normal(size=len(people)) + shift
    signals = {"confidence": scores, "entropy": rng.normal(size=len(people)) / 9}
    return Samples(signals, np.zeros(len(people), int), people)


def shift_of(difference: float) -> float:
    """Return the shift of two normal samples of deviation 1 that makes an AUC of 0.5 + this."""
    return float(np.sqrt(2) * norm.ppf(0.5 + difference))


def of_images(forget: Samples, judges: Samples, strangers: Samples, **settings) -> Equivalence:
    """Wrong: every image counts as a person of its own."""
    lone = (Samples(s.signals, s.labels, np.arange(len(s))) for s in (forget, judges, strangers))
    return function(*lone, **settings)


def share_that_holds(judge: Callable, shift: float, people: int = 40, rounds: int = 40) -> float:
    rng, holds = np.random.default_rng(0), []
    for _ in range(rounds):
        forget, judges, strangers = side(people, rng, shift), side(people, rng), side(people, rng)
        holds.append(judge(forget, judges, strangers, margin=0.15).holds)
    return float(np.mean(holds))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("judge", "holds"), [(equivalence, True), (of_images, False)])
def test_who_lies_at_the_margin_is_called_equivalent_in_one_case_of_twenty(judge, holds, sign):
    # 40 rounds at 5 % have more than 6 in one of three hundred tests.
    assert (share_that_holds(judge, sign * shift_of(0.15)) <= 6 / 40) is holds


def test_people_who_are_treated_alike_are_found_to_be_where_there_are_enough_of_them():
    assert share_that_holds(equivalence, 0.0, people=150, rounds=20) > 0.9


def test_it_is_the_judges_who_say_what_a_stranger_looks_like_and_not_one_half():
    rng = np.random.default_rng(1)
    forget, judges, strangers = side(200, rng), side(200, rng), side(200, rng, shift=0.8)
    assert auc(forget.signals["confidence"], strangers.signals["confidence"]) < 0.35
    found = equivalence(forget, judges, strangers, margin=0.15)
    assert found.holds
    low, high = found.interval
    assert low < found.difference < high


def test_all_signals_have_to_pass():
    rng = np.random.default_rng(2)
    forget, judges, strangers = side(200, rng), side(200, rng), side(200, rng)
    forget.signals["entropy"][:] += 1  # type: ignore[index]
    found = equivalence(forget, judges, strangers, margin=0.15)
    assert found.holds is False
    assert found.signal == "entropy"
    assert found.difference > 0.4


def test_few_people_cannot_tell():
    rng = np.random.default_rng(3)
    sides = [side(n, rng, images=60) for n in (15, 40, 40)]
    assert equivalence(*sides, margin=0.49).holds is None
    assert equivalence(side(16, rng, images=60), *sides[1:], margin=0.49).holds


def test_the_weighted_auc_is_that_of_repeated_images():
    rng = np.random.default_rng(4)
    scores, others = rng.integers(0, 5, 30).astype(float), rng.integers(0, 5, 20).astype(float)
    weights, more = rng.integers(0, 4, 30), rng.integers(0, 4, 20)
    found = _Against(scores, others)(weights.astype(float), more.astype(float))
    assert found == pytest.approx(auc(np.repeat(scores, weights), np.repeat(others, more)))
