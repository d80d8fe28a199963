"""dlfd_dist/objectives.py: what trials are judged by, and that doing nothing does not win."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.yardstick_worlds import WORLDS, Shape, drawn
from dlfd_dist.config import CompareConfig, SearchConfig
from dlfd_dist.metrics import quick_attack
from dlfd_dist.objectives import ATTACK_MARGIN, OBJECTIVES, SEARCHED, TUNED, gap_on_val, on_val

RETRAINED: dict[str, Any] = {
    "retain_accuracy": 1.0, "forget_accuracy": 0.6, "val_accuracy": 0.6, "mia_auc": 0.52,
    "nomus": 0.7, "forgetting_score": 0.02,
}  # fmt: skip
ORIGINAL = RETRAINED | {
    "forget_accuracy": 1.0, "mia_auc": 0.9, "nomus": 0.75, "forgetting_score": 0.3,
}  # fmt: skip
FORGOT = RETRAINED | {"forget_accuracy": 0.65, "val_accuracy": 0.55, "mia_auc": 0.53, "nomus": 0.7}


def test_tuning_and_search_take_the_same_objectives_and_the_gap_unless_told():
    assert (CompareConfig().objective, SearchConfig().objective) == ("gap", "gap")
    assert TUNED == ("gap", "attack_at_most", "resurface", "nomus")
    assert (*TUNED, "pareto") == SEARCHED
    assert [o.needs_retrained for o in OBJECTIVES.values()] == [True, True, True, False, False]


def test_the_gap_is_a_mean_distance_and_does_without_what_is_not_known():
    reference = {"forget_accuracy": 0.5, "val_accuracy": 0.6, "mia_auc": 0.5, "retain": 1.0}
    figures = {"forget_accuracy": 0.7, "val_accuracy": 0.6, "mia_auc": 0.4, "retain": 0.9}
    assert gap_on_val(figures, reference, "retain") == pytest.approx(0.1)
    assert gap_on_val(figures | {"retain": None}, reference, "retain") == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["gap", "attack_at_most"])
def test_an_untouched_model_loses_to_one_that_forgot(name: str):
    """By NoMUS it wins."""
    objective, nomus = OBJECTIVES[name], OBJECTIVES["nomus"]
    assert objective.is_better(
        objective.value(FORGOT, RETRAINED), objective.value(ORIGINAL, RETRAINED)
    )
    assert nomus.is_better(nomus.value(ORIGINAL, None), nomus.value(FORGOT, None))


def test_a_leak_that_the_confidence_does_not_see_breaks_the_bound():
    """In worlds like CK+48 right and wrong answers tell people apart; the AUC is near chance."""
    rng = np.random.default_rng(5)
    world, shape = WORLDS["like CK+48 (1.0 against .77)"], Shape((20, 60), (8, 8), 0.3)
    found = [quick_attack(*drawn(world, shape, rng), seed=seed) for seed in range(20)]
    auc, accuracy = (np.mean([getattr(f, name) for f in found]) for name in ("auc", "accuracy"))
    assert auc - 0.5 < RETRAINED["forgetting_score"] + ATTACK_MARGIN < accuracy - 0.5
    leaking = FORGOT | {"mia_auc": auc, "forgetting_score": accuracy - 0.5}
    objective = OBJECTIVES["attack_at_most"]
    assert objective.value(leaking, RETRAINED) < 0 < objective.value(FORGOT, RETRAINED)


@pytest.mark.parametrize("retrained_auc", [0.5, 0.55, 0.45])
def test_a_trial_that_keeps_the_bound_beats_every_trial_that_does_not(retrained_auc: float):
    objective = OBJECTIVES["attack_at_most"]
    retrained = RETRAINED | {"mia_auc": retrained_auc, "forgetting_score": 0.0}

    def value(auc: float, accuracy: float) -> float:
        figures = {"mia_auc": auc, "forgetting_score": 0.0, "val_accuracy": accuracy}
        return objective.value(figures, retrained)

    most = abs(retrained_auc - 0.5) + ATTACK_MARGIN
    for side in (1, -1):
        assert value(0.5 + side * (most - 1e-6), 0.0) == 0.0
        # Above the bound the accuracy does not count, and a weaker attack is better.
        beyond = value(0.5 + side * (most + 0.01), 1.0)
        assert beyond == pytest.approx(-0.01)
        assert objective.is_better(0.0, beyond)
        assert objective.is_better(beyond, value(0.5 + side * (most + 0.02), 1.0))
    assert objective.is_better(value(0.5, 0.8), value(0.5, 0.7))
    assert objective.is_better(value(1.0, 1.0), objective.worst)


def resurfaced(mild: float, strong: float | None, auc: float = 0.52, **figures: float) -> dict:
    """Figures of a model that forgot as Retrained did, until it was fine-tuned on."""
    rates = {"mild": mild, "strong": strong}
    return RETRAINED | figures | {
        "resurfaced": {
            name: None if value is None else {"forget_accuracy": value, "mia_auc": auc}
            for name, value in rates.items()
        }
    }  # fmt: skip


def test_who_comes_back_loses_to_who_does_not_and_a_ruined_model_to_both():
    objective, retrained = OBJECTIVES["resurface"], resurfaced(0.6, 0.62)

    def value(*rates: float | None, **figures: float) -> float:
        return objective.value(resurfaced(*rates, **figures), retrained)

    # By gap a mask is as good as Retrained, for what it hides is hidden as long as nobody trains.
    assert OBJECTIVES["gap"].value(resurfaced(1.0, 1.0, auc=0.9), retrained) == 0.0
    mask, gone = value(1.0, 1.0, auc=0.9), value(0.63, 0.66)
    ruined = value(0.05, 0.2, val_accuracy=0.1)
    assert gone == pytest.approx(0.04 / 3)
    assert mask == pytest.approx((0.4 + 0.38) / 3)
    assert objective.is_better(gone, mask)
    assert objective.is_better(mask, ruined)
    # The rate at which most comes back counts, and so does one at which the loss was no number.
    assert value(0.6, 1.02) == value(1.0, 0.62) == pytest.approx(0.4 / 3)
    assert value(0.6, None) == pytest.approx(2 / 3)
    assert objective.is_better(value(0.6, None), objective.worst)


def test_what_comes_back_is_read_without_its_figures_of_test():
    rate = {
        "forget_accuracy": 0.6, "test_accuracy": 0.9, "attack_accuracy": 0.9,
        "validation": {"val_accuracy": 0.5, "mia_auc": 0.5},
    }  # fmt: skip
    result = {"validation": {}, "resurfacing": {"steps": 3, "rates": {"a": rate, "b": None}}}
    known = {"forget_accuracy": 0.6, "val_accuracy": 0.5, "mia_auc": 0.5}
    assert on_val(result) == {"resurfaced": {"a": known, "b": None}}


def test_figures_of_test_do_not_reach_an_objective():
    result = {
        "nomus": 0.9, "test_accuracy": 0.9, "mia": {"auc": 0.9}, "retain_accuracy": 1.0,
        "validation": {"nomus": 0.1, "mia_auc": 0.5},
    }  # fmt: skip
    assert on_val(result) == {"retain_accuracy": 1.0, "nomus": 0.1, "mia_auc": 0.5}
