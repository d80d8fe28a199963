"""metrics: against scikit-learn, torch and published tables."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import fisher_exact
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, silhouette_samples
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from dlfd_dist.metrics import (
    Separation,
    accuracy,
    accuracy_per_label,
    attack_accuracy,
    auc,
    balanced_mia,
    class_separation,
    correct,
    forgetting_score,
    gap_to_retrained,
    logit_scaled_confidence,
    mia_paper,
    nomus,
    over_forgetting,
    sample_losses,
)
from dlfd_dist.metrics.folds import person_folds
from dlfd_dist.metrics.mia import floor_reason, majority_share, tpr_at_fpr
from dlfd_dist.metrics.separation import linear_probe_accuracy, scatter_ratio, silhouette

RAF_DB_SIZES = (3314, 3068)
"""Forget and test images of the published RAF-DB attack: not balanced."""


def draws(n: int, m: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return normal member and nonmember scores whose means differ by `shift`."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, m)


def test_accuracy_of_one_label_counts_the_largest_logit():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.1, 0.2], [-1.0, -2.0, -3.0], [0.0, 5.0, 1.0]])
    labels = np.array([0, 2, 1, 0])
    assert correct(logits, labels).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert accuracy(logits, labels) == 0.5
    assert accuracy_per_label(logits, labels) is None


def test_accuracy_of_several_labels_is_their_mean():
    logits = np.array([[2.0, -1.0, 3.0], [-2.0, -1.0, 3.0]])
    labels = np.array([[1, 0, 0], [0, 1, 1]])
    assert correct(logits, labels).tolist() == [2 / 3, 2 / 3]
    assert accuracy(logits, labels) == pytest.approx(2 / 3, rel=1e-12)  # rounding alone
    assert accuracy_per_label(logits, labels) == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_set_has_no_accuracy(shape):
    labels = np.zeros(shape, dtype=np.int64)
    assert accuracy(np.zeros((0, 2)), labels) is None
    assert accuracy_per_label(np.zeros((0, 2)), labels) is None


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_sample_losses_are_torch_cross_entropy(scale):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, scale, (50, 7)), rng.integers(0, 7, 50)
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
    # Both compute in float64; the two log-sum-exps round differently.
    np.testing.assert_allclose(sample_losses(logits, labels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_sample_losses_of_several_labels_are_the_mean_torch_bce(scale):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, scale, (50, 4)), rng.integers(0, 2, (50, 4))
    expected = F.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.float64), reduction="none"
    ).mean(1)
    # log1p(exp(x)) here, max(x, 0) + log1p(exp(-|x|)) there: rounding of float64.
    np.testing.assert_allclose(sample_losses(logits, labels), expected, rtol=1e-10, atol=1e-12)


def test_confidence_is_the_logit_of_the_true_class_probability():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 5)), rng.integers(0, 5, 40)
    p = torch.softmax(torch.tensor(logits), 1).numpy()[np.arange(40), labels]
    # 1 - p loses digits where p is near 1, so the naive form is good to about 1e-13 / (1 - p).
    np.testing.assert_allclose(
        logit_scaled_confidence(logits, labels), np.log(p) - np.log(1 - p), rtol=1e-9, atol=1e-9
    )


def test_confidence_of_several_labels_is_the_mean_logit_of_the_right_answer():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 3))
    p = np.where(labels == 1, 1 / (1 + np.exp(-logits)), 1 - 1 / (1 + np.exp(-logits)))
    # As above: 1 - p of the naive form.
    np.testing.assert_allclose(
        logit_scaled_confidence(logits, labels),
        (np.log(p) - np.log(1 - p)).mean(1),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([1e3, 0.0, 0.0], 0, 1e3 - math.log(2)),
        ([1e3, 0.0, 0.0], 1, -1e3),
        ([1e3, 1e3, -1e3], 0, 0.0),
        ([-1e3, -1e3, -1e3], 2, -math.log(2)),
    ],
)
def test_confidence_is_finite_where_the_probability_is_0_or_1(logits, label, expected):
    found = logit_scaled_confidence(np.array([logits]), np.array([label]))
    # exp(-1000) is 0 in float64, so only the last digits of 1e3 can differ.
    assert found[0] == pytest.approx(expected, rel=1e-14, abs=1e-12)


def test_confidence_leaves_the_logits_alone():
    logits = np.ones((3, 2))
    logit_scaled_confidence(logits, np.array([0, 1, 0]))
    assert np.array_equal(logits, np.ones((3, 2)))


@pytest.mark.parametrize("digits", [8, 0], ids=["distinct", "ties"])
@pytest.mark.parametrize(("n", "m"), [(30, 30), (7, 90), (1, 5)])
def test_auc_is_scikit_learns(digits, n, m):
    members, nonmembers = (np.round(side, digits) for side in draws(n, m, 0.7))
    truth = np.r_[np.ones(n), np.zeros(m)]
    expected = roc_auc_score(truth, np.r_[members, nonmembers])
    assert auc(members, nonmembers) == pytest.approx(expected, rel=1e-12)  # sums of n * m halves


@pytest.mark.parametrize(
    ("members", "nonmembers", "fpr", "expected"),
    [
        # Ten nonmembers 0..9: at 10 % one may be accused, so the threshold is just above 8.
        ([8.5, 9.5, 7.0, 1.0], range(10), 0.1, 0.5),
        ([8.5, 9.5, 7.0, 1.0], range(10), 0.2, 0.5),
        ([8.5, 9.5, 7.0, 1.0], range(10), 0.3, 0.75),
        # At 1 % of ten none may be accused.
        ([8.5, 9.5, 7.0, 1.0], range(10), 0.01, 0.25),
        ([8.5, 8.9, 7.0, 1.0], range(10), 0.01, 0.0),
        # A tie with a nonmember cannot be had without accusing that one.
        ([9.0, 9.0], range(10), 0.05, 0.0),
        ([10.0, 11.0], range(10), 0.001, 1.0),
    ],
)
def test_tpr_at_fpr_by_hand(members, nonmembers, fpr, expected):
    found = tpr_at_fpr(np.array(members), np.array(nonmembers, dtype=float), fpr)
    assert found == pytest.approx(expected, rel=1e-12)  # a ratio of small integers


@pytest.mark.parametrize(
    ("attack", "score"), [(0.5, 0.0), (0.7, 0.2), (0.3, 0.2), (1.0, 0.5), (0.0, 0.5)]
)
def test_forgetting_score_is_the_distance_to_chance(attack, score):
    assert forgetting_score(attack) == pytest.approx(score, abs=1e-15)  # one subtraction


def test_balanced_attack_tells_separable_sets_apart():
    found = balanced_mia(*draws(60, 60, 20.0), num_bootstrap=50)
    assert (found.accuracy, found.auc, found.tpr_at_1pct, found.tpr_at_01pct) == (1, 1, 1, 1)
    assert (found.floor, found.floor_reason, found.forgetting_score) == (False, "", 0.5)


def test_balanced_attack_finds_members_that_score_lower_as_well():
    """Forgotten too well is seen too: the attack's direction is learnt, the AUC's is not."""
    found = balanced_mia(*draws(60, 60, -20.0), num_bootstrap=50)
    assert (found.accuracy, found.auc) == (1, 0)


def test_balanced_attack_is_that_of_the_best_threshold_between_two_normals():
    found = balanced_mia(*draws(2000, 2000, 1.0), num_bootstrap=50)
    # Two unit normals one apart: Phi(1/2) = 0.6915, AUC Phi(1/sqrt 2) = 0.7602.
    # Four standard errors of 4000 samples: 4 * sqrt(.69 * .31 / 4000) = 0.029.
    assert found.accuracy == pytest.approx(0.6915, abs=0.029)
    assert found.auc == pytest.approx(0.7602, abs=0.029)
    assert found.interval[0] < 0.6915 < found.interval[1]
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]


@pytest.mark.parametrize("seed", range(4))
def test_identical_distributions_are_at_chance_and_raise_the_floor(seed):
    found = balanced_mia(*draws(300, 300, 0.0, seed), num_bootstrap=200)
    assert found.interval[0] <= 0.5
    # Chance within four standard errors of 600 samples: 4 * sqrt(.25 / 600) = 0.082.
    assert found.accuracy == pytest.approx(0.5, abs=0.082)
    assert found.floor
    assert "no better than chance (95 % interval 0." in found.floor_reason


def test_identical_distributions_have_an_interval_that_covers_chance():
    found = balanced_mia(*draws(300, 300, 0.0, 1), num_bootstrap=200)
    assert found.interval[0] <= 0.5 <= found.interval[1]
    assert found.auc_interval[0] <= 0.5 <= found.auc_interval[1]


@pytest.mark.parametrize("sizes", [RAF_DB_SIZES, (900, 100), (100, 900)])
def test_majority_share_is_what_always_the_larger_scores(sizes):
    assert majority_share(*sizes) == max(sizes) / sum(sizes)


def test_always_member_scores_5193_on_the_published_sizes():
    assert round(majority_share(*RAF_DB_SIZES), 4) == 0.5193


def test_the_papers_attack_on_uninformative_losses_prints_the_published_5196():
    """Each of its 10 test parts holds 332 members of 639 samples: 0.5196, printed for two methods.

    DESIGN.md 2 says so of RAF-DB; the balanced attack is at chance on the same losses.
    """
    members, nonmembers = np.ones(RAF_DB_SIZES[0]), np.ones(RAF_DB_SIZES[1])
    found = mia_paper(members, nonmembers)
    assert found == pytest.approx(332 / 639, rel=1e-12)  # the same ratio in every part
    assert round(332 / 639, 4) == 0.5196
    balanced = attack_accuracy(members, nonmembers)
    # Always one side: half of each balanced test part, up to parts of odd size.
    assert balanced == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("sizes", [(900, 100), (100, 900)])
def test_unbalanced_sizes_inflate_the_papers_attack_and_not_ours(sizes):
    papers, ours = [], []
    for seed in range(8):
        members, nonmembers = draws(*sizes, 0.0, seed)
        papers.append(mia_paper(members, nonmembers))
        ours.append(balanced_mia(members, nonmembers, num_bootstrap=100))
    # The logistic regression says "larger side" for every sample: 0.9 of each test part.
    assert papers == pytest.approx([0.9] * 8, abs=1e-12)
    # Four standard errors of 8 times 200 samples: 4 * sqrt(.25 / 1600) = 0.05.
    assert np.mean([found.accuracy for found in ours]) == pytest.approx(0.5, abs=0.05)
    # The interval leaves out the attack's own training, so up to one set in ten looks attackable.
    assert sum(found.floor for found in ours) >= 6
    assert (ours[0].num_members, ours[0].num_nonmembers) == sizes


def test_accuracy_alone_is_that_of_the_full_attack():
    members, nonmembers = draws(80, 120, 0.8)
    whole = balanced_mia(members, nonmembers, seed=3, num_bootstrap=5)
    alone = attack_accuracy(members, nonmembers, seed=3)
    assert alone == pytest.approx(whole.accuracy, rel=1e-12)  # another order of two sums


def test_balanced_attack_is_a_function_of_its_seed():
    sets = draws(50, 80, 0.5)
    one, again, other = (balanced_mia(*sets, seed=s, num_bootstrap=20) for s in (1, 1, 2))
    assert one == again
    assert one.interval != other.interval
    assert (one.auc, one.tpr_at_1pct) == (other.auc, other.tpr_at_1pct)


def test_balanced_attack_does_not_change_with_the_unit_of_the_scores():
    members, nonmembers = draws(60, 60, 0.8)
    one = balanced_mia(members, nonmembers, num_bootstrap=20)
    other = balanced_mia(1e4 * members + 1e3, 1e4 * nonmembers + 1e3, num_bootstrap=20)
    assert one.accuracy == other.accuracy
    assert one.interval == other.interval


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 30), (2, 2), (3, 2), (9, 100), (100, 9)])
def test_tiny_sets_give_finite_numbers_and_say_that_they_mean_nothing(n, m):
    found = balanced_mia(*draws(n, m, 1.0), num_bootstrap=20)
    numbers = [found.accuracy, found.auc, found.tpr_at_1pct, *found.interval, *found.auc_interval]
    assert all(0 <= number <= 1 for number in numbers)
    assert found.floor
    assert found.floor_reason.startswith(f"Only {min(n, m)} samples on one side")


def test_a_single_pair_is_at_chance():
    assert balanced_mia(np.ones(1), np.zeros(1), num_bootstrap=5).accuracy == 0.5


@pytest.mark.parametrize(
    ("sizes", "interval", "says"),
    [
        ((10, 10), [0.51, 0.6], ""),
        ((9, 10), [0.51, 0.6], "Only 9 samples"),
        ((10, 10), [0.5, 0.6], "no better than chance"),
        ((10, 10), [0.2, 0.4], "no better than chance"),
    ],
)
def test_floor_reason_at_its_borders(sizes, interval, says):
    found = floor_reason(*sizes, interval)
    assert (says in found) if says else (found == "")


def test_result_can_be_written_as_json():
    found = balanced_mia(*draws(20, 20, 1.0), num_bootstrap=5)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 40, 1.0), (6, 5, 0.5), (2, 9, 0.0)])
def test_the_papers_attack_is_scikit_learns_on_the_raw_loss(n, m, shift):
    members, nonmembers = draws(n, m, shift)
    losses = np.r_[nonmembers, members][:, None]
    truth = np.r_[np.zeros(m, dtype=int), np.ones(n, dtype=int)]
    splits = StratifiedShuffleSplit(n_splits=10, random_state=0)
    expected = cross_val_score(LogisticRegression(), losses, truth, cv=splits).mean()
    assert mia_paper(members, nonmembers) == expected


@pytest.mark.parametrize(("n", "m"), [(1, 50), (50, 1), (0, 50), (5, 5), (2, 8)])
def test_the_papers_attack_has_no_figure_for_sets_it_cannot_divide(n, m):
    assert mia_paper(*draws(n, m, 1.0)) is None


MUFAC_README = {
    "Original": (0.5951, 0.2136, 0.5839),
    "Retrained": (0.488, 0.0445, 0.6995),
    "Fine-tuning": (0.6055, 0.2129, 0.5898),
    "CF-3": (0.5900, 0.2126, 0.5824),
    "NegGrad": (0.4048, 0.0485, 0.6539),
    "UNSIR stage 1": (0.5893, 0.2089, 0.5857),
    "UNSIR stage 2": (0.5925, 0.1990, 0.5972),
    "SCRUB": (0.5984, 0.1415, 0.6577),
    "Advanced NegGrad": (0.5633, 0.0953, 0.6863),
}
DLFD_REPOSITORY = [
    (0.632979, 0.192359, 0.624131),
    (0.608378, 0.054817, 0.749372),
    (0.619681, 0.027907, 0.781933),
    (0.646277, 0.163787, 0.659351),
]


@pytest.mark.parametrize("row", MUFAC_README)
def test_nomus_reproduces_the_mufac_table_of_machine_unlearning(row):
    """ndb796/MachineUnlearning README: test accuracy, forgetting score of the attack, final score.

    All nine rows hold to 1e-4. Rounding of the two inputs to 4 digits allows
    0.5 * 5e-5 + 5e-5 = 7.5e-5, that of the printed score another 5e-5 (1e-4 where it was cut off).
    """
    test_accuracy, score, printed = MUFAC_README[row]
    assert nomus(test_accuracy, score) == pytest.approx(printed, abs=1e-4)


@pytest.mark.parametrize(("test_accuracy", "score", "printed"), DLFD_REPOSITORY)
def test_nomus_reproduces_the_rows_of_the_dlfd_repository(test_accuracy, score, printed):
    # Six digits: 0.5 * 5e-7 + 5e-7 of the inputs and 5e-7 of the printed score.
    assert nomus(test_accuracy, score) == pytest.approx(printed, abs=1.25e-6)


@pytest.mark.parametrize(
    ("test_accuracy", "score", "weight", "expected"),
    [(1.0, 0.0, 0.5, 1.0), (0.0, 0.5, 0.5, 0.0), (0.8, 0.1, 1.0, 0.8), (0.8, 0.1, 0.0, 0.8)],
)
def test_nomus_weighs_utility_against_forgetting(test_accuracy, score, weight, expected):
    assert nomus(test_accuracy, score, weight) == pytest.approx(expected, rel=1e-12)  # rounding


def test_gap_is_the_mean_absolute_difference_of_four_figures():
    model = {
        "retain_accuracy": 0.9,
        "forget_accuracy": 0.8,
        "test_accuracy": 0.7,
        "mia_accuracy": 0.6,
    }
    retrained = {
        "retain_accuracy": 0.95,
        "forget_accuracy": 0.6,
        "test_accuracy": 0.7,
        "mia_accuracy": 0.45,
    }
    # (0.05 + 0.2 + 0 + 0.15) / 4, in both directions alike; other figures do not count.
    assert gap_to_retrained(model, retrained) == pytest.approx(0.1, rel=1e-12)
    assert gap_to_retrained({**retrained, "nomus": 1.0}, model) == pytest.approx(0.1, rel=1e-12)
    assert gap_to_retrained(model, model) == 0


# Forgotten too hard

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


# Class separation


def blobs(
    spread: float, sizes: tuple[int, ...] = (40, 40, 40), dim: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes), dim)[labels] + rng.normal(0, spread, (len(labels), dim)), labels


def alone(labels: np.ndarray) -> np.ndarray:
    """Return a person for each image."""
    return np.arange(len(labels))


def probe_accuracy(features: np.ndarray, labels: np.ndarray) -> float | None:
    return linear_probe_accuracy(features, labels, alone(labels))


def separation(features: np.ndarray, labels: np.ndarray) -> Separation:
    return class_separation(features, labels, alone(labels))


def test_separation_falls_as_the_classes_run_into_each_other():
    found = [separation(*blobs(spread)) for spread in (0.05, 0.4, 50.0)]
    for name in ("silhouette", "linear_probe_accuracy", "scatter_ratio"):
        near, middle, lost = (getattr(one, name) for one in found)
        assert near > middle > lost
    assert found[0].silhouette > 0.9
    assert found[0].linear_probe_accuracy == 1.0
    # Labels that mean nothing: silhouette 0, chance 1/3, scatter (C - 1) / (n - C) = 2 / 117.
    assert found[2].silhouette == pytest.approx(0, abs=0.05)
    assert found[2].linear_probe_accuracy == pytest.approx(1 / 3, abs=4 * 0.043)
    assert found[2].scatter_ratio == pytest.approx(2 / 117, abs=0.02)


def test_scatter_ratio_by_hand():
    # Means -1 and 1 around 0: between 4 * 1; within 4 * 0.5^2.
    features = np.array([[-1.5], [-0.5], [0.5], [1.5]])
    labels = np.array([0, 0, 1, 1])
    assert scatter_ratio(features, labels) == pytest.approx(4.0)
    # The unit and the place of the features do not matter, classes of unequal size weigh theirs.
    assert scatter_ratio(1e3 * features + 7, labels) == pytest.approx(4.0)
    assert scatter_ratio(features, np.array([0, 0, 0, 1])) == pytest.approx(3.0 / 2.0)


def test_silhouette_is_scikit_learns_by_cosine():
    features, labels = blobs(0.4)
    wanted = silhouette_samples(features, labels, metric="cosine").mean()
    assert silhouette(features, labels) == pytest.approx(wanted)
    norms = np.random.default_rng(1).uniform(0.1, 10, (len(labels), 1))
    assert silhouette(features * norms, labels) == pytest.approx(wanted)


def test_silhouette_of_many_rows_is_that_of_a_fixed_draw():
    features, labels = blobs(0.4, sizes=(1500, 1500))
    found = silhouette(features, labels)
    assert found == silhouette(features, labels)
    # A draw of 2000 of 3000: within a few standard errors, about 0.3 / sqrt(2000), of the whole.
    whole = silhouette_samples(features, labels, metric="cosine").mean()
    assert found != whole
    assert found == pytest.approx(whole, abs=0.03)


def test_linear_probe_sees_what_silhouette_does_not():
    # The class is one faint direction under others that are ten times as wide.
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    features = rng.normal(0, 10, (200, 6))
    features[:, 0] = 2 * labels - 1 + rng.normal(0, 0.1, 200)
    assert probe_accuracy(features, labels) == pytest.approx(1.0, abs=0.02)
    assert silhouette(features, labels) == pytest.approx(0, abs=0.05)


def test_linear_probe_of_unequal_classes_has_chance_one_half():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(400, 4)), np.repeat([0, 1], [360, 40])
    # Always the larger would be right in 0.9; four standard errors of 40 and 360 samples are 0.17.
    assert probe_accuracy(features, labels) == pytest.approx(0.5, abs=0.17)


def test_linear_probe_leaves_out_classes_too_small_to_divide():
    features, labels = blobs(0.05, sizes=(30, 30, 1))
    two = labels < 2
    assert probe_accuracy(features, labels) == probe_accuracy(features[two], labels[two])
    assert probe_accuracy(*blobs(0.05, sizes=(30, 1))) is None


def test_linear_probe_does_not_know_a_class_by_the_faces_in_it():
    """Frames of a person are nearly equal, and the classes mean nothing: by images the probe would
    look perfect."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 4)
    features = rng.normal(size=(60, 100))[people] + rng.normal(0, 0.01, (240, 100))
    labels = rng.integers(0, 2, 60)[people]
    assert probe_accuracy(features, labels) == 1.0
    found = linear_probe_accuracy(features, labels, people)
    assert found == pytest.approx(0.5, abs=0.2)  # three standard errors of 60 people


def test_a_class_of_few_people_has_fewer_folds():
    features, labels = blobs(0.05, sizes=(30, 30))
    people = np.r_[np.arange(30), np.repeat([100, 101], 15)]
    assert linear_probe_accuracy(features, labels, people) == 1.0
    assert len(person_folds(labels, people, 0)) == 2
    for learnt, judged in person_folds(labels, people, 0):
        assert not set(people[learnt]) & set(people[judged])
    assert len(person_folds(labels, alone(labels), 0)) == 5


@pytest.mark.parametrize(
    ("sizes", "wanted"), [((20,), [None] * 3), ((1, 1), [None, None, None]), ((), [None] * 3)]
)
def test_labels_that_divide_nothing_have_no_separation(sizes, wanted):
    found = separation(*blobs(0.1, sizes=sizes))
    assert list(found.to_dict().values()) == wanted


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_collapsed_features_are_not_separated(value):
    features, labels = np.full((60, 16), value), np.repeat([0, 1, 2], 20)
    found = separation(features, labels)
    assert (found.silhouette, found.scatter_ratio) == (0.0, 0.0)
    assert found.linear_probe_accuracy == pytest.approx(1 / 3, abs=0.05)


def test_classes_without_any_spread_have_no_ratio():
    assert scatter_ratio(np.repeat([[0.1], [0.7]], 20, axis=0), np.repeat([0, 1], 20)) is None


def test_separation_of_several_labels_is_the_mean_over_them():
    features, classes = blobs(0.4, sizes=(40, 40))
    noise = np.random.default_rng(1).integers(0, 2, 80)
    found = separation(features, np.stack([classes, noise, np.zeros(80, int)], 1)).to_dict()
    one, two = (separation(features, labels).to_dict() for labels in (classes, noise))
    # The third label is the same for all: it has no figures and does not count.
    assert found == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})
