"""Did it act: methods that do nothing, only lower their confidence, or always answer alike."""

from __future__ import annotations

import numpy as np
import pytest

from dlfd_dist.metrics import against_original, alike, guards_of, moved, relative_change

RANDOM = np.random.default_rng(5)
LABELS = np.arange(90) % 3
BEFORE = 4 * np.eye(3)[LABELS] + RANDOM.normal(0, 1, (90, 3))
PLANTED = {
    "nothing": (1e-4, BEFORE + 1e-3),
    "lower confidence": (0.02, BEFORE / 4),
    "one class": (0.3, np.array([5.0, 0.0, 0.0]) + RANDOM.normal(0, 0.1, (90, 3))),
    "forgets": (0.1, np.where(np.arange(90)[:, None] % 5 == 0, -BEFORE, BEFORE)),
}


def judged(name: str):
    weights, after = PLANTED[name]
    parts = dict.fromkeys(("retain", "forget", "val"), moved(after, BEFORE))
    return against_original(weights, parts), alike(after, LABELS)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("nothing", (True, False, False)),
        ("lower confidence", (False, True, False)),
        ("one class", (False, False, True)),
        ("forgets", (False, False, False)),
    ],
)
def test_planted_methods_are_told_by_what_they_do(name, flags):
    found, answers = judged(name)
    assert answers is not None
    assert (found["left_as_is"], found["only_confidence"], answers.flag) == flags
    assert bool(found["reason"]) == any(flags[:2])
    guards = guards_of({"mia": None, "against_original": found, "alike": answers.to_dict()})
    assert tuple(guards[n]["flag"] for n in ("left_as_is", "only_confidence", "alike")) == flags
    assert all(bool(guard["reason"]) == bool(guard["flag"]) for guard in guards.values())


def test_what_moved_either_way_is_no_model_left_as_it_is():
    still, far = (moved(after, BEFORE) for after in (BEFORE, -BEFORE))
    assert against_original(0.0, {"retain": still, "forget": still})["left_as_is"]
    assert not against_original(0.2, {"retain": still, "forget": still})["left_as_is"]
    assert not against_original(0.0, {"retain": still, "forget": far})["left_as_is"]
    assert against_original(0.0, {"retain": still, "forget": None})["left_as_is"]
    assert moved(BEFORE[:0], BEFORE[:0]) is None


def test_a_model_that_is_surer_or_answers_otherwise_does_not_only_lower_its_confidence():
    for after in (BEFORE * 4, np.roll(BEFORE, 1, 1) / 4):
        part = moved(after, BEFORE)
        assert not against_original(0.1, {"retain": part, "forget": part})["only_confidence"]


def test_a_fall_from_saturated_logits_is_marked_though_no_probability_moves():
    """Logits of CK+48: 30 before and 5 after are probabilities of 1.000 and .987."""
    before = 30 * np.eye(3)[LABELS]
    part = moved(before / 6, before)
    assert part is not None
    assert part.confidence_change > -0.02
    assert part.logit_change == pytest.approx((5 - np.log(2)) / (30 - np.log(2)) - 1)
    for weights in (0.02, 0.001):
        found = against_original(weights, dict.fromkeys(("retain", "forget", "val"), part))
        assert (found["only_confidence"], found["left_as_is"]) == (True, False)
        assert "its logit confidence by -85 %" in found["reason"]
    surer = moved(before, before / 6)
    assert not against_original(0.02, {"forget": surer, "val": surer})["only_confidence"]
    pairs = np.stack([np.zeros((90, 2)), np.full((90, 2), 30.0)], axis=-1)
    several = moved(pairs / 6, pairs)
    assert several is not None
    assert several.logit_change == pytest.approx(-5 / 6)


@pytest.mark.parametrize("majority", [0.6, 0.8, 0.9, 0.95])
def test_a_majority_class_that_is_always_answered_counts(majority):
    labels = (np.arange(200) >= 200 * majority).astype(int)
    always = np.tile([3.0, 0.0], (200, 1))
    found = alike(always, labels)
    assert found.flag
    assert found.balanced_accuracy == 0.5
    assert "50.0 % of the answers are right" in found.reason
    nearly = always.copy()
    nearly[:1] = nearly[:1, ::-1]
    assert alike(nearly, labels).flag
    # A model that knows both classes gives the majority as often as it is there.
    assert not alike(3.0 * np.eye(2)[labels], labels).flag


def test_answers_alike_are_no_fault_where_the_labels_are():
    logits = np.tile([3.0, 0.0, 0.0], (90, 1))
    assert alike(logits, LABELS).flag
    assert not alike(logits, np.zeros(90, int)).flag
    assert alike(logits[:0], LABELS[:0]) is None
    several = RANDOM.integers(0, 2, (90, 2))
    assert alike(np.tile([3.0, -3.0], (90, 1)), several).flag
    assert not alike(np.where(several > 0, 3.0, -3.0), several).flag


def test_the_relative_change_is_that_of_the_norms():
    assert relative_change(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert relative_change(np.zeros(3), np.ones(3)) is None
