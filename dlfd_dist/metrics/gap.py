"""How far an unlearned model is from the one that never saw the forgotten people."""

from __future__ import annotations

from collections.abc import Mapping

GAP_FIGURES = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_accuracy")


def gap_to_retrained(model: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Return the mean absolute difference over retain, forget and test accuracy and the attack.

    0 is best: the model behaves as Retrained does.
    Source: Fan et al. 2024 (SalUn), "average gap".
    """
    return sum(abs(model[name] - retrained[name]) for name in GAP_FIGURES) / len(GAP_FIGURES)
