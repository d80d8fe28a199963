"""Power of the attack, RMIA and relearn time by simulation, by hand, and by known cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from dlfd_dist.metrics import (
    anamnesis_index,
    auc,
    detectable_auc,
    exposure_by_person,
    low_power_reason,
    relearn_time,
    rmia_scores,
)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 150)])
def test_the_detectable_auc_is_found_in_four_of_five_samples(n, m):
    """Scores normal; the formula assumes exponential ones, so within 6 points of 80 %."""
    shift = np.sqrt(2) * norm.ppf(detectable_auc(n, m))
    rng = np.random.default_rng(0)
    members, others = rng.normal(shift, 1, (400, n)), rng.normal(0, 1, (400, m))
    found = mannwhitneyu(members, others, axis=1, method="asymptotic").pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.06)


def test_more_samples_see_less_and_a_handful_sees_nothing():
    values = [detectable_auc(n, n) for n in (5, 20, 100, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.54
    assert detectable_auc(1, 1) == 1.0


@pytest.mark.parametrize(
    ("least", "says"),
    [(0.6, ""), (0.61, "an AUC below 0.61 would be missed"), (1.0, "even an AUC of 1 would be")],
)
def test_what_an_attack_could_have_missed_is_said_from_weak_on(least, says):
    reason = low_power_reason(least, 3, 5)
    assert (says in reason) if says else (reason == "")


def test_rmia_is_the_count_of_dominated_population_images():
    rng = np.random.default_rng(0)
    target, population = rng.random(7), rng.random(20)
    references, others = rng.random((3, 7)), rng.random((3, 20))
    by_hand = [
        np.mean([
            (target[i] / references[:, i].mean()) / (population[j] / others[:, j].mean()) >= 1.2
            for j in range(20)
        ])
        for i in range(7)
    ]  # fmt: skip
    found = rmia_scores(target, references, population, others, gamma=1.2)
    np.testing.assert_allclose(found, by_hand)


def test_rmia_sees_members_where_the_confidence_alone_does_not():
    """Half of the images are hard; members gain a little on what references say of them."""
    rng = np.random.default_rng(0)
    usual = rng.choice([0.2, 0.8], 800)
    noise = rng.normal(0, 0.03, (4, 800))
    member = np.arange(800) < 400
    target = (usual + noise[0] + 0.08 * member).clip(0.01, 1)
    references = (usual + noise[1:]).clip(0.01, 1)
    scores = rmia_scores(target, references, target[400:], references[:, 400:])
    assert auc(scores[member], scores[~member]) > 0.85 > auc(target[member], target[~member])


def test_an_offline_correction_of_one_leaves_the_mean():
    rng = np.random.default_rng(0)
    sides = rng.random(5), rng.random((2, 5)), rng.random(9), rng.random((2, 9))
    np.testing.assert_array_equal(rmia_scores(*sides, offline_a=1.0), rmia_scores(*sides))


def test_relearn_time():
    assert relearn_time([0.1], 0.2) == 0
    assert relearn_time([2.0, 1.0, 0.5], 0.2) is None
    assert relearn_time([2.0, 0.23, 0.22], 0.2) == 2
    assert anamnesis_index(3, 12) == 0.25
    assert anamnesis_index(3, 0) is None


def test_exposure_is_the_attack_s_auc_person_by_person():
    rng = np.random.default_rng(0)
    confidence, unseen = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    persons = np.repeat([3, 7], [10, 30])
    found = exposure_by_person(confidence, persons, unseen)
    for person, value in found.items():
        assert value == pytest.approx(auc(confidence[persons == person], unseen))
    weighted = np.average(list(found.values()), weights=[10, 30])
    assert weighted == pytest.approx(auc(confidence, unseen))
