"""The gap to Retrained taken apart, SalUn's gap and attack, and the retrain-free divergence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import norm

from dlfd_dist.metrics import (
    GAP_PARTS,
    attack_gap,
    class_mean_divergence,
    gap_parts,
    gap_to_retrained,
    js_divergence,
    label_pairs,
    people_mean,
    salun_gap,
    salun_mia,
)

RANDOM = np.random.default_rng(4)


class Part(NamedTuple):
    logits: np.ndarray
    labels: np.ndarray
    people: np.ndarray


def part(right: list[int], people: list[int] | None = None) -> Part:
    """Return answers of two classes, of which `right` says whether they are."""
    labels = np.zeros(len(right), int)
    logits = np.where(np.array(right)[:, None] == 1, [[1.0, 0.0]], [[0.0, 1.0]])
    return Part(logits, labels, np.array(people or range(len(right))))


def attack(accuracy: float, half: float = 0.1) -> dict[str, object]:
    return {"accuracy": accuracy, "interval": [accuracy - half, accuracy + half]}


MODEL = {
    "retain": part([1, 1, 1, 0]), "forget": part([1, 1, 1, 1]), "test": part([1, 0, 0, 0]),
}  # fmt: skip
RETRAINED = {
    "retain": part([1, 1, 1, 1]), "forget": part([1, 0, 0, 1]), "test": part([0, 0, 1, 0]),
}  # fmt: skip


def test_every_part_has_its_sign_and_the_gap_is_the_mean_of_their_absolute_values():
    parts = gap_parts(MODEL, RETRAINED, (attack(0.7), attack(0.55)))
    assert tuple(parts) == ("retain_accuracy", "forget_accuracy", "test_accuracy", *GAP_PARTS[3:])
    apart = {name: found.difference for name, found in parts.items()}
    p, q = softmax([1.0, 0.0]), softmax([0.0, 1.0])
    bits = jensenshannon(p, q, base=2) ** 2 / 2
    assert apart == pytest.approx({
        "retain_accuracy": -0.25, "forget_accuracy": 0.5, "test_accuracy": 0.0,
        "mia_accuracy": 0.15, "js_divergence": bits,
    })  # fmt: skip
    assert gap_to_retrained(parts) == pytest.approx((0.25 + 0.5 + 0.15 + bits) / 5)
    swapped = gap_parts(RETRAINED, MODEL, (attack(0.55), attack(0.7)))
    assert gap_to_retrained(swapped) == pytest.approx(gap_to_retrained(parts))
    assert gap_to_retrained(gap_parts(MODEL, MODEL, (attack(0.7), attack(0.7)))) == 0


def test_the_interval_of_a_part_is_over_people_and_that_of_the_attack_adds_both_errors():
    people = [0, 0, 1, 1]
    model = {**MODEL, "forget": part([1, 1, 1, 1], people)}
    parts = gap_parts(model, RETRAINED, (attack(0.7, 0.03), attack(0.55, 0.04)))
    found = people_mean(np.array([0.0, 1.0, 1.0, 0.0]), np.array(people))
    assert found is not None
    assert parts["forget_accuracy"].interval == pytest.approx(
        [max(-1, found.interval()[0]), min(1, found.interval()[1])]
    )
    low, high = attack_gap(attack(0.7, 0.03), attack(0.55, 0.04)).interval or [0, 0]
    assert (low, high) == pytest.approx((0.15 - 0.05, 0.15 + 0.05), abs=1e-6)
    alone = {**MODEL, "forget": part([1, 1, 1, 1], [7, 7, 7, 7])}
    assert gap_parts(alone, RETRAINED, (attack(0.5), attack(0.5)))["js_divergence"].interval is None
    wide = gap_parts(MODEL, RETRAINED, (attack(0.7), attack(0.55)))["js_divergence"].interval
    assert wide is not None
    assert wide[0] >= 0


@pytest.mark.parametrize("side", ["num_member_people", "num_nonmember_people"])
def test_the_attack_has_no_interval_of_fewer_than_sixteen_people(side):
    few, enough = ({**attack(0.7), side: number} for number in (15, 16))
    for pair in ((few, attack(0.5)), (attack(0.5), few)):
        assert attack_gap(*pair).interval is None
    assert attack_gap(few, attack(0.5)).difference == pytest.approx(0.2)
    assert attack_gap(enough, attack(0.5)).interval is not None


def test_salun_s_attack_is_the_share_of_forgotten_images_taken_for_never_seen():
    retain, test = RANDOM.uniform(0.001, 0.01, 300), RANDOM.uniform(1.5, 3, 90)
    assert salun_mia(retain, test, np.full(20, 0.005)) == 0
    assert salun_mia(retain, test, np.full(20, 2.0)) == 1
    assert salun_mia(retain, test, np.r_[np.full(5, 0.005), np.full(15, 2.0)]) == 0.75
    assert salun_mia(retain, test[:1], np.full(20, 2.0)) is None
    assert salun_mia(retain, test, np.empty(0)) is None


def test_salun_s_average_gap_is_the_mean_over_their_four_figures():
    own = {"forget_accuracy": 0.9, "retain_accuracy": 1.0, "test_accuracy": 0.7, "salun_mia": 0.2}
    other = {
        "forget_accuracy": 0.7,
        "retain_accuracy": 0.9,
        "test_accuracy": 0.75,
        "salun_mia": 0.6,
    }
    assert salun_gap(own, other) == pytest.approx((0.2 + 0.1 + 0.05 + 0.4) / 4)
    assert salun_gap(own, {**other, "salun_mia": None}) is None


def test_the_retrain_free_divergence_compares_mean_answers_class_by_class():
    logits, others = RANDOM.normal(size=(40, 3)), RANDOM.normal(size=(60, 3))
    labels, other_labels = np.arange(40) % 3, np.arange(60) % 2
    found = class_mean_divergence(logits, labels, others, other_labels)
    wanted = [
        jensenshannon(
            softmax(logits[labels == c], axis=1).mean(0),
            softmax(others[other_labels == c], axis=1).mean(0), base=2,
        ) ** 2
        for c in (0, 1)
    ]  # fmt: skip
    assert found == pytest.approx(np.mean(wanted))
    assert class_mean_divergence(logits, labels, logits, labels) == pytest.approx(0, abs=1e-12)
    assert class_mean_divergence(logits, labels, others, other_labels + 9) is None


def test_the_retrain_free_divergence_of_several_labels_is_the_mean_over_them():
    logits, others = RANDOM.normal(size=(40, 2)), RANDOM.normal(size=(50, 2))
    labels, other_labels = (RANDOM.integers(0, 2, (n, 2)) for n in (40, 50))
    each = [
        class_mean_divergence(
            label_pairs(logits[:, k]), labels[:, k], label_pairs(others[:, k]), other_labels[:, k]
        )
        for k in (0, 1)
    ]
    found = class_mean_divergence(logits, labels, others, other_labels)
    assert found == pytest.approx(np.mean(each))
    assert js_divergence(logits[:, None], logits[:, None]).shape == (40,)


def test_the_interval_of_the_attack_is_the_normal_one():
    found = attack_gap(attack(0.6, norm.ppf(0.975) * 0.02), attack(0.5, 0.0)).interval
    assert found == pytest.approx([0.1 - norm.ppf(0.975) * 0.02, 0.1 + norm.ppf(0.975) * 0.02])
