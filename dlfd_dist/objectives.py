"""What the trials of a comparison's tuning and of a search are judged by, all of it on val.

`compare.objective` and `search.objective` name an entry of OBJECTIVES; there is no second list.
Nothing here reads a figure of the test set, and no objective chooses a model that was left alone:
a choice has to be better than the untouched Original by the same objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ATTACK_MARGIN = 0.03
"""attack_at_most: the attack may be so much further from 0.5 than it is of Retrained."""
GAP_ON_VAL = ("forget_accuracy", "val_accuracy", "mia_auc")
RETAIN = "retain_accuracy"

Figures = Mapping[str, Any]


def on_val(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a result that a choice may go by, by the names that objectives read."""
    names = ("retain_accuracy", "forget_accuracy", "val_accuracy")
    figures = {name: result[name] for name in names if name in result} | result["validation"]
    if result.get("resurfacing"):
        figures["resurfaced"] = {
            name: after and {"forget_accuracy": after["forget_accuracy"], **after["validation"]}
            for name, after in result["resurfacing"]["rates"].items()
        }
    return figures


def gap_on_val(figures: Figures, retrained: Figures, retain: str = RETAIN) -> float:
    """Return the gap as it may be chosen by: accuracy on forget, val and retain, AUC against val.

    Parameters
    ----------
    retain : the name of the figure on retain images, of all of them or of a sample; where it is
        None, the gap is that of the others
    """
    names = [name for name in (*GAP_ON_VAL, retain) if figures[name] is not None]
    return sum(abs(figures[name] - retrained[name]) for name in names) / len(names)


def accuracy_under_attack(figures: Figures, retrained: Figures, _retain: str = RETAIN) -> float:
    """Return val accuracy where the attack is weak enough, else minus what it has too much.

    A model that keeps the bound is above every model that does not.
    """
    excess = _strength(figures) - (_strength(retrained) + ATTACK_MARGIN)
    return float(figures["val_accuracy"]) if excess <= 0 else -excess


def _strength(figures: Figures) -> float:
    """Return how far the attack is from chance, by accuracy or by AUC, whichever is further.

    An AUC below 0.5 betrays people as well. Where right and wrong answers alone tell them apart,
    as on CK+48, the AUC of the confidence hardly sees it: .53 where the accuracy is .61.
    """
    return max(abs(figures["mia_auc"] - 0.5), figures["forgetting_score"])


def resurfaced_gap(figures: Figures, retrained: Figures, _retain: str = RETAIN) -> float:
    """Return how far a model is from Retrained once both were fine-tuned on the retain set.

    The mean of three distances: accuracy on forget and AUC against val, each at the rate where it
    is largest, and val accuracy as delivered, for a model that was ruined brings nobody back. A
    rate at which the model's loss became no number counts as 1.
    """
    rates = retrained["resurfaced"].items()
    sides = [(figures["resurfaced"][rate], theirs) for rate, theirs in rates if theirs is not None]

    def apart(figure: str) -> float:
        return max((_distance(own, theirs, figure) for own, theirs in sides), default=0.0)

    delivered = _distance(figures, retrained, "val_accuracy")
    return (apart("forget_accuracy") + apart("mia_auc") + delivered) / 3


def _distance(own: Figures | None, other: Figures, figure: str) -> float:
    return 1.0 if own is None else abs(own[figure] - other[figure])


def _nomus(figures: Figures, _retrained: Figures | None = None, _retain: str = RETAIN) -> float:
    return float(figures["nomus"])


@dataclass(frozen=True)
class Objective:
    """A figure that trials are ranked by."""

    name: str
    title: str
    mode: str
    """max, or min: the smallest is best"""
    worst: float
    """What a trial that failed counts as."""
    value: Callable[..., float]
    """Of the figures of a model, those of Retrained (read where needs_retrained), and the name of
    the figure on retain images."""
    needs_retrained: bool = False
    resurfaces: bool = False
    """Whether it reads what fine-tuning brings back, which is measured at the end alone."""
    several: bool = False
    """Whether it weighs several figures, which a search alone can; `value` ranks among equals."""

    @property
    def sign(self) -> int:
        """Return what a value is multiplied by so that the smallest is best."""
        return 1 if self.mode == "min" else -1

    def is_better(self, value: float, than: float) -> bool:
        return self.sign * value < self.sign * than


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            "gap", "gap to Retrained on validation", "min", 1.0, gap_on_val, needs_retrained=True
        ),
        Objective(
            "attack_at_most",
            f"validation accuracy with an attack of at most Retrained's + {ATTACK_MARGIN:g}",
            "max", -0.5, accuracy_under_attack, needs_retrained=True,
        ),
        Objective(
            "resurface", "gap to Retrained after fine-tuning on retain, on validation",
            "min", 1.0, resurfaced_gap, needs_retrained=True, resurfaces=True,
        ),
        Objective("nomus", "validation NoMUS", "max", 0.0, _nomus),
        Objective(
            "pareto", "validation accuracy and forgetting score", "max", 0.0, _nomus, several=True
        ),
    )
}  # fmt: skip
SEARCHED = tuple(OBJECTIVES)
TUNED = tuple(name for name, objective in OBJECTIVES.items() if not objective.several)
