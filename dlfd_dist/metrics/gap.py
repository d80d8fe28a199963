"""How far an unlearned model is from Retrained, part by part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .accuracy import correct
from .estimates import Estimate, people_mean
from .people import MIN_PEOPLE
from .similarity import js_divergence, predictions

GAP_PARTS = (
    "retain_accuracy", "forget_accuracy", "test_accuracy", "mia_accuracy", "js_divergence",
)  # fmt: skip
_NORMAL = 1.959964
"""Half a 95 % interval in standard errors."""


class Answers(Protocol):
    """What a model says of a set of images, whose they are and what is right."""

    @property
    def logits(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def people(self) -> np.ndarray: ...


@dataclass(frozen=True)
class GapPart:
    """A difference to Retrained, model minus Retrained, with its 95 % interval over people.

    The interval is None where there are fewer than two people, of the attack fewer than MIN_PEOPLE.
    """

    difference: float
    interval: list[float] | None


def gap_parts(
    model: Mapping[str, Answers],
    retrained: Mapping[str, Answers],
    attacks: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> dict[str, GapPart]:
    """Return the five parts of the gap, by name of GAP_PARTS; of a divergence the sign is +.

    Parameters
    ----------
    model, retrained : retain, forget and test, the same images of both
    attacks : the figures of the attack on the model and on Retrained
    """
    parts = {}
    for name in ("retain", "forget", "test"):
        own, other = model[name], retrained[name]
        apart = correct(own.logits, own.labels) - correct(other.logits, other.labels)
        parts[f"{name}_accuracy"] = _part(apart, own.people)
    own, other = model["forget"], retrained["forget"]
    apart = js_divergence(*(predictions(side.logits, side.labels) for side in (own, other)))
    parts["mia_accuracy"] = attack_gap(*attacks)
    parts["js_divergence"] = _part(apart, own.people, least=0.0)
    return parts


def _part(apart: np.ndarray, people: np.ndarray, *, least: float = -1.0) -> GapPart:
    mean = people_mean(apart, people)
    if mean is None:
        return GapPart(float(apart.mean()), None)
    low, high = mean.interval()
    return GapPart(mean.mean, [max(least, low), min(1.0, high)])


def attack_gap(own: Mapping[str, Any], other: Mapping[str, Any]) -> GapPart:
    """Return how much more the attack tells of one model than of another.

    The errors of both are added as if independent; people who are easy in both make the true error
    smaller, so that the interval is rather too wide. With fewer than MIN_PEOPLE on a side of either
    attack the interval is None, as it would not cover what it claims.
    """
    difference = own["accuracy"] - other["accuracy"]
    if any(
        (attack.get(f"num_{side}_people") or MIN_PEOPLE) < MIN_PEOPLE
        for attack in (own, other)
        for side in ("member", "nonmember")
    ):
        return GapPart(difference, None)
    error = attack_error(own, other)
    return GapPart(difference, Estimate(difference, error, math.inf).interval())


def attack_error(*attacks: Mapping[str, Any]) -> float:
    """Return the standard error of a sum or difference of the accuracies of attacks."""
    halves = [(attack["interval"][1] - attack["interval"][0]) / 2 for attack in attacks]
    return math.hypot(*halves) / _NORMAL


def gap_to_retrained(parts: Mapping[str, GapPart]) -> float:
    """Return the mean of the absolute values of the parts; 0 is best."""
    return sum(abs(parts[name].difference) for name in GAP_PARTS) / len(GAP_PARTS)


def tug_of_war(model: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Return the product of 1 - |difference to Retrained| over forget, retain and test accuracy.

    1 is best; a method that pays for one with another loses in the product.
    Source: Zhao et al. 2024, "What makes unlearning hard", eq. 3.
    """
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy")
    return math.prod(1 - abs(model[name] - retrained[name]) for name in names)
