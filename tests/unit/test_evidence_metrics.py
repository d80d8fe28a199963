"""metrics beside the attack: nearness to Retrained, and attacks on features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax
from scipy.stats import ortho_group

from dlfd_dist.metrics import (
    MembershipProbes,
    completeness,
    js_divergence,
    label_pairs,
    linear_cka,
    membership_probes,
    tug_of_war,
    zero_retrain_forgetting,
)
from dlfd_dist.metrics.membership_probes import tells_apart

RANDOM = np.random.default_rng(0)


def hsic_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The definition by Gram matrices (Kornblith et al. 2019, eq. 2 and 4)."""
    n = len(x)
    centring = np.eye(n) - 1 / n

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        return np.trace(k @ centring @ m @ centring)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_is_its_definition_by_gram_matrices():
    x, y = RANDOM.normal(size=(40, 7)) + 3, RANDOM.normal(size=(40, 5))
    y[:, :3] += x[:, :3]
    assert linear_cka(x, y) == pytest.approx(hsic_cka(x, y), rel=1e-10)


def test_cka_knows_no_rotation_shift_or_scale_but_knows_stretching():
    x = RANDOM.normal(size=(50, 6))
    moved = 3 * x @ ortho_group.rvs(6, random_state=1) + 5
    assert linear_cka(x, moved) == pytest.approx(1)
    stretched = linear_cka(x, x * np.array([20, 1, 1, 1, 1, 1]))
    assert stretched is not None
    assert stretched < 0.9


def test_cka_of_what_does_not_vary_or_does_not_match():
    x = RANDOM.normal(size=(10, 3))
    assert linear_cka(x, np.ones((10, 4))) is None
    with pytest.raises(ValueError, match="10 and of 9 rows"):
        linear_cka(x, x[:9])


def test_js_divergence_is_that_of_scipy_and_symmetric():
    a, b = RANDOM.normal(size=(6, 4)) * 3, RANDOM.normal(size=(6, 4))
    wanted = [
        jensenshannon(p, q, base=2) ** 2 for p, q in zip(softmax(a, 1), softmax(b, 1), strict=True)
    ]
    np.testing.assert_allclose(js_divergence(a, b), wanted, rtol=1e-9)
    np.testing.assert_allclose(js_divergence(a, b), js_divergence(b, a), rtol=1e-12)
    assert js_divergence(a, a + 7).max() < 1e-12


def test_js_divergence_of_certain_and_opposed_models_is_one_bit():
    assert js_divergence(np.array([[900.0, 0.0]]), np.array([[0.0, 900.0]])) == pytest.approx([1])


def test_js_divergence_of_several_labels_is_the_mean_over_them():
    a, b = RANDOM.normal(size=(5, 3)) * 2, RANDOM.normal(size=(5, 3))
    single = [
        [jensenshannon([1 - p, p], [1 - q, q], base=2) ** 2 for p, q in zip(x, y, strict=True)]
        for x, y in zip(expit(a), expit(b), strict=True)
    ]
    found = js_divergence(label_pairs(a), label_pairs(b))
    np.testing.assert_allclose(found, np.mean(single, axis=1), rtol=1e-9)


def test_completeness_counts_rows_with_the_same_answer():
    a = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    assert completeness(a, a[[0, 1, 3, 2]]) == 0.5
    # One of two labels answered otherwise is another answer.
    b = np.array([[1.0, -1.0], [1.0, 1.0]])
    assert completeness(label_pairs(b), label_pairs(b * [1, -1])) == 0.0
    assert completeness(label_pairs(b), label_pairs(b * [1, 3])) == 1.0


def test_zero_retrain_forgetting_of_a_guessing_and_of_a_certain_model():
    guessing, certain = np.zeros((3, 2)), np.tile([50.0, 0.0], (3, 1))
    assert zero_retrain_forgetting(guessing, guessing) == 1
    wanted = 1 - jensenshannon([0.5, 0.5], [1, 0], base=2) ** 2
    assert zero_retrain_forgetting(certain, guessing) == pytest.approx(wanted)


def test_tug_of_war_is_the_product_over_the_three_sets():
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy")
    model, retrained = (
        dict(zip(names, v, strict=True)) for v in ((1.0, 0.9, 0.8), (0.5, 1.0, 0.8))
    )
    assert tug_of_war(model, retrained) == pytest.approx(0.5 * 0.9)
    assert tug_of_war(model, model) == 1


def probes(forget: np.ndarray, unseen: np.ndarray, seed: int = 0) -> MembershipProbes | None:
    """Return the probes of images that show a person each."""
    people = (np.arange(len(forget)), -1 - np.arange(len(unseen)))
    return membership_probes(forget, unseen, people=people, seed=seed)


def test_probes_do_not_know_a_side_by_the_faces_on_it():
    """Nothing but persons tells the sides apart, so that they must be at chance."""
    found, by_images = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(40), 6)
        features = rng.normal(size=(40, 30))[people] + rng.normal(0, 0.1, (240, 30))
        sides, shown = np.split(features, 2), np.split(people, 2)
        found.append(membership_probes(*sides, people=(shown[0], shown[1])))
        by_images.append(probes(*sides))
    for name in ("knn_auc", "linear_auc"):
        assert np.mean([getattr(one, name) for one in by_images]) > 0.95
        # A side has 20 people: the standard error of an AUC is .09, of the mean of ten .03.
        assert np.mean([getattr(one, name) for one in found]) == pytest.approx(0.5, abs=0.1)


def test_probes_need_two_people_a_side():
    rows = RANDOM.normal(size=(60, 4))
    two, one = np.repeat([0, 1], 15), np.full(30, 2)
    assert membership_probes(rows[:30], rows[30:], people=(two, one)) is None
    assert membership_probes(rows[:30], rows[30:], people=(two, two + 5)) is not None


@pytest.mark.parametrize(("auc", "few", "many"), [(0.5, False, False), (0.7, False, True)])
def test_a_probe_tells_sides_apart_beyond_the_error_of_their_people(auc, few, many):
    found = MembershipProbes(knn_auc=0.5, linear_auc=auc)
    assert tells_apart(found, 8, 8) is few
    assert tells_apart(found, 60, 60) is many
    assert tells_apart(MembershipProbes(knn_auc=auc, linear_auc=0.5), 60, 60) is many


def test_probes_of_the_same_distribution_are_at_chance():
    found = [
        probes(*np.split(np.random.default_rng(s).normal(size=(400, 8)), 2), seed=s)
        for s in range(10)
    ]
    for name in ("knn_auc", "linear_auc"):
        assert np.mean([getattr(one, name) for one in found]) == pytest.approx(0.5, abs=0.03)


def test_probes_find_what_lies_apart_and_neighbours_find_what_no_plane_does():
    rows = RANDOM.normal(size=(300, 5))
    apart = probes(rows[:150] + 2, rows[150:])
    assert apart is not None
    assert min(apart.knn_auc, apart.linear_auc) > 0.95
    # Members in two opposite directions, strangers in the two between.
    directions = np.array([[4.0, 0, 0, 0, 0], [-4, 0, 0, 0, 0], [0, 4, 0, 0, 0], [0, -4, 0, 0, 0]])
    cloud = np.repeat(directions, 75, axis=0) + rows / 2
    crossed = probes(cloud[:150], cloud[150:])
    assert crossed is not None
    assert crossed.knn_auc > 0.99
    assert crossed.linear_auc < 0.6


def test_probes_balance_the_sides_and_refuse_too_few_rows():
    rows = RANDOM.normal(size=(300, 4))
    assert probes(rows[:9], rows) is None
    few_of_many = probes(rows[:20], rows)
    assert few_of_many == probes(rows[:20], rows)
