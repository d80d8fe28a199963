"""How far an unlearned model is from the one that never saw the forgotten people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

GAP_FIGURES = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_accuracy")
GAP_ON_VAL = ("forget_accuracy", "val_accuracy", "mia_auc")


def gap_to_retrained(model: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Return the mean absolute difference over retain, forget and test accuracy and the attack.

    0 is best: the model behaves as Retrained does.
    Source: Fan et al. 2024 (SalUn), "average gap".
    """
    return sum(abs(model[name] - retrained[name]) for name in GAP_FIGURES) / len(GAP_FIGURES)


def gap_on_val(
    figures: Mapping[str, Any], reference: Mapping[str, float], retain: str = "retain_accuracy"
) -> float:
    """Return the gap as it may be chosen by: accuracy on forget, val and retain, AUC against val.

    Parameters
    ----------
    retain : the name of the figure on retain images, of all of them or of a sample; where it is
        None, the gap is that of the others
    """
    names = [name for name in (*GAP_ON_VAL, retain) if figures[name] is not None]
    return sum(abs(figures[name] - reference[name]) for name in names) / len(names)


def tug_of_war(model: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Return the product of 1 - |difference to Retrained| over forget, retain and test accuracy.

    1 is best; a method that pays for one with another loses in the product.
    Source: Zhao et al. 2024, "What makes unlearning hard", eq. 3.
    """
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy")
    return math.prod(1 - abs(model[name] - retrained[name]) for name in names)
