"""The membership attack in worlds whose leakage is known, by people, and within labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.yardstick_worlds import (
    EQUAL,
    WORLDS,
    Shape,
    best_threshold,
    drawn,
    old_accuracy,
)
from dlfd_dist.metrics import SIGNALS, Samples, membership_attack, quick_attack, thresholds
from dlfd_dist.metrics.mia import auc_over_people
from dlfd_dist.metrics.people import permuted_people
from dlfd_dist.metrics.sides import Sides, labels_differ
from tests.fakes.scores import both_sides, draws

CK48 = WORLDS["like CK+48 (1.0 against .77)"]


def found_advantages(world, shape: Shape, num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    found = [quick_attack(*drawn(world, shape, rng), seed=k).accuracy for k in range(num)]
    return np.array(found) - 0.5


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
@pytest.mark.parametrize(
    "shape", [Shape((60, 60)), Shape((20, 60), (8, 8), 0.3)], ids=["60 + 60 people", "20 + 60"]
)
def test_attack_finds_95_percent_of_the_best_thresholds_advantage(world, shape):
    """On the same draws: the mean of the best threshold over draws is its advantage."""
    best, rng, shares = best_threshold(world), np.random.default_rng(0), []
    for seed in range(100):
        sides = drawn(world, shape, rng)
        accuracy = quick_attack(*sides, seed=seed).accuracy
        shares.append(1 + (accuracy - 0.5 - best.on(*sides)) / best.advantage)
    assert np.mean(shares) >= 0.95


def test_the_narrow_smoothing_finds_a_step_and_the_wide_one_a_flat_top(monkeypatch):
    def mean_accuracy(world, row: int, *widths: float) -> float:
        monkeypatch.setattr(thresholds, "WIDTHS", widths)
        rng, accuracies = np.random.default_rng(0), []
        for seed in range(40):
            sides = drawn(world, Shape((20, 60), (8, 8), 0.3), rng)
            both = Sides.of(*sides)
            values = np.stack([np.r_[sides[0].signals[n], sides[1].signals[n]] for n in SIGNALS])
            accuracies.append(both.signals(values).judge(both.is_member, seed, 1).accuracies[row])
        return float(np.mean(accuracies))

    heavy, confidence = WORLDS["heavy-tailed"], SIGNALS.index("confidence")
    assert mean_accuracy(heavy, -1, 0.5, 1.5) > mean_accuracy(heavy, -1, 0.5)
    assert mean_accuracy(CK48, confidence, 0.5, 1.5) > mean_accuracy(CK48, confidence, 1.5) + 0.03


@pytest.mark.parametrize(
    "shape", [Shape((16, 16), (8, 8), 0.5), Shape((20, 60), (8, 8), 0.3), Shape()],
    ids=["16 + 16", "20 + 60", "50 + 50"],
)  # fmt: skip
def test_attack_is_not_below_guessing_by_correctness_but_by_its_error(shape: Shape):
    """In the world where nothing beats correctness, so that any other choice can only lose."""
    rng, below, apart = np.random.default_rng(5), 0, []
    for seed in range(80):
        sides = drawn(CK48, shape, rng)
        found = quick_attack(*sides, seed=seed)
        right = [side.signals["correctness"].mean() for side in sides]
        guessing = 0.5 + (right[0] - right[1]) / 2
        below += found.accuracy < guessing - 1.96 * found.accuracy_error
        apart.append((found.accuracy - guessing) / found.accuracy_error)
    assert below / 80 <= 0.1
    assert np.mean(apart) > -0.5


def test_attack_is_unbiased_where_both_sides_are_alike():
    found = found_advantages(EQUAL, Shape((20, 40), (1, 8), 0.5), 150)
    assert found.mean() == pytest.approx(0, abs=3 * found.std() / len(found) ** 0.5)


def test_the_old_attack_is_blind_where_guessing_by_correctness_is_not():
    """CK+48: its threshold lay in the bulk of saturated confidences, beyond what is wrong."""
    rng = np.random.default_rng(2)
    worlds = [drawn(CK48, Shape(), rng) for _ in range(6)]
    old = np.mean([old_accuracy(*sides, seed=0) for sides in worlds])
    new = np.mean([quick_attack(*sides).accuracy for sides in worlds])
    gaps = [
        np.mean(one.signals["correctness"]) - np.mean(other.signals["correctness"])
        for one, other in worlds
    ]
    assert old < 0.55
    assert new == pytest.approx(0.5 + np.mean(gaps) / 2, abs=0.02)


def test_members_that_score_lower_are_leakage_too():
    """The direction is learnt from other people: lowered confidence is found, not only raised."""
    found = found_advantages(lambda latent, member: 1 + 2 * latent - 2 * member, Shape(), 40)
    assert found.mean() > 0.1


def test_people_are_never_on_both_sides_of_a_fold():
    """Without a signal of membership, the images of a person must not tell of one another."""
    rng = np.random.default_rng(3)
    person = rng.normal(size=(60, 1)) + 0.001 * rng.normal(size=(60, 10))
    scores = []
    for seed in range(60):
        order = rng.permutation(60)
        members, others = person[order[:30]].ravel(), person[order[30:]].ravel()
        scores.append(quick_attack(*both_sides(members, others, 10), seed=seed).accuracy)
    assert np.mean(scores) == pytest.approx(0.5, abs=3 * np.std(scores) / 60**0.5)


def test_every_attack_is_told_and_the_strongest_is_named():
    found = membership_attack(
        *drawn(CK48, Shape((40, 40)), np.random.default_rng(4)), num_permutations=39
    )
    assert tuple(found.attacks) == SIGNALS
    assert found.attack == "correctness"
    for attack in found.attacks.values():
        low, high = attack["interval"]
        assert 0 <= low <= attack["accuracy"] <= high <= 1
    assert not found.floor
    assert found.p_value == pytest.approx(1 / 40)
    gap = found.attacks["correctness"]
    assert found.accuracy >= gap["accuracy"] - (gap["interval"][1] - gap["interval"][0]) / 2


def test_classes_that_differ_are_compared_within_labels():
    """ORL: the forgotten are of one class, which is easier; nothing of it is leakage."""
    rng = np.random.default_rng(5)
    accuracies, whole = [], []
    for seed in range(40):
        labels = np.zeros(120, int), np.repeat((0, 1), (84, 36))
        sides = []
        for first, kinds in zip((0, 40), labels, strict=True):
            confidence = rng.normal(np.where(kinds == 0, 2.0, -1.0), 1.0)
            logits = np.stack([np.where(kinds == 0, confidence, -confidence), np.zeros(120)], 1)
            sides.append(Samples.of(logits, kinds, first + np.arange(120) // 3))
        found = quick_attack(*sides, seed=seed)
        accuracies.append(found.accuracy)
        blind = [dataclasses.replace(side, labels=np.zeros(120, int)) for side in sides]
        whole.append(quick_attack(*blind, seed=seed).accuracy)
    assert np.mean(whole) > 0.6
    assert np.mean(accuracies) == pytest.approx(0.5, abs=3 * np.std(accuracies) / 40**0.5)
    result = membership_attack(*sides, num_permutations=19)
    assert result.within_labels
    assert (result.num_member_people, result.num_nonmember_people) == (40, 28)


def test_sides_that_share_no_class_cannot_be_compared():
    one, other = both_sides(*draws(40, 40, 3.0))
    other = dataclasses.replace(other, labels=np.ones(40, int))
    found = membership_attack(one, other, num_permutations=9)
    assert (found.accuracy, found.auc, found.floor) == (0.5, 0.5, True)
    assert found.floor_reason.startswith("0 forgotten and 0 unseen people can be compared")
    assert found.tpr_at_1pct == 0.01


@pytest.mark.parametrize(
    ("share", "differs"), [((50, 50), False), ((54, 46), False), ((56, 44), True)]
)
def test_labels_differ_from_five_in_a_hundred_on(share, differs):
    even = np.repeat((0, 1), 50)
    assert labels_differ(even, np.repeat((0, 1), share)) is differs
    several = np.stack([even, np.zeros(100, int)], 1)
    other = np.stack([np.repeat((0, 1), share), np.zeros(100, int)], 1)
    assert labels_differ(several, other) is differs


def test_a_person_counts_as_one_whatever_the_number_of_images():
    """Eight equal images of a person say what one says: the AUC's interval does not shrink."""
    members, others = draws(30, 40, 0.6)
    once = membership_attack(*both_sides(members, others), num_permutations=9)
    eight = membership_attack(
        *both_sides(np.repeat(members, 8), np.repeat(others, 8), 8), num_permutations=9
    )
    assert eight.auc == pytest.approx(once.auc)
    assert eight.auc_interval == pytest.approx(once.auc_interval, abs=1e-9)
    assert eight.detectable_auc == pytest.approx(once.detectable_auc, abs=1e-6)
    assert (eight.num_members, eight.num_member_people) == (240, 30)


def test_images_of_strangers_say_more_than_images_of_one_person():
    members, others = draws(240, 240, 0.0)
    faces = both_sides(np.sort(members), np.sort(others), 8)
    of_people = membership_attack(*faces, num_permutations=9)
    alone = membership_attack(*both_sides(members, others), num_permutations=9)
    assert of_people.detectable_auc > alone.detectable_auc + 0.05


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5])
def test_the_interval_of_the_auc_covers_equal_worlds_of_16_people(correlation: float):
    rng, held, num = np.random.default_rng(6), 0, 400
    for _ in range(num):
        found = _auc_interval(drawn(EQUAL, Shape((16, 16), (1, 8), correlation), rng))
        held += found[0] <= 0.5 <= found[1]
    # Nominal within 2 points, and three standard errors of the simulation.
    slack = 0.02 + 3 * (0.05 * 0.95 / num) ** 0.5
    assert held / num == pytest.approx(0.95, abs=slack)
    assert held < num


def _auc_interval(sides) -> list[float]:
    scores = np.concatenate([side.signals["confidence"] for side in sides])
    return auc_over_people(scores, Sides.of(*sides))[1]


def test_the_interval_of_the_accuracy_covers_equal_worlds_of_16_people():
    """The folds share what they learn from; an interval over images alone would leave .5 out."""
    rng, held, num = np.random.default_rng(7), 0, 30
    for seed in range(num):
        sides = drawn(EQUAL, Shape((16, 16), (1, 8), 0.5), rng)
        low, high = membership_attack(
            *sides, seed=seed, num_permutations=39, num_repeats=1
        ).interval
        held += low <= 0.5 <= high
    assert held >= 25  # of 30 at .95 that many or more in 99.7 % of the cases


def test_the_interval_holds_chance_exactly_where_permutations_do_not_reject_it():
    rng, verdicts = np.random.default_rng(8), []
    world = lambda latent, member: latent + 0.45 * member  # noqa: E731
    for seed in range(12):
        attack = membership_attack(
            *drawn(world, Shape((16, 16), (1, 8), 0.2), rng), seed=seed, num_permutations=39,
            num_repeats=1,
        )  # fmt: skip
        verdicts.append(attack.interval[0] > 0.5)
        # One permutation of 39 as high as the accuracy is 2 of 40, above a tail of 2.5 %.
        assert verdicts[-1] == (attack.p_value <= 1 / 40)
    assert 0 < sum(verdicts) < 12


def test_permutations_keep_people_whole_and_their_kinds():
    rng = np.random.default_rng(0)
    member, kinds = np.repeat((True, False), (10, 20)), np.arange(30) % 3
    drawn_anew = [permuted_people(member, kinds, rng) for _ in range(50)]
    for sides in drawn_anew:
        assert np.bincount(kinds[sides]).tolist() == np.bincount(kinds[member]).tolist()
    assert len({tuple(sides) for sides in drawn_anew}) > 40
