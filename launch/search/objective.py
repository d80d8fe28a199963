"""What a trial is judged by, all of it on val: the figures it reports and which way they count."""

from __future__ import annotations

import math

from dlfd_dist.config import SearchConfig

WORST = {
    "objective": 0.0, "nomus": 0.0, "accuracy": 0.0, "forgetting_score": 0.5,
    "nomus_se": 0.0, "forgetting_score_se": 0.0,
}  # fmt: skip
"""What a trial that failed reports, so that nothing like it is suggested again."""


def title(search: SearchConfig) -> str:
    return {
        "nomus": "validation NoMUS",
        "pareto": "validation accuracy and forgetting score",
        "gap": "gap to Retrained on validation",
    }[search.objective]


def mode(search: SearchConfig) -> str:
    """Return whether the figure `objective` of a trial is to be large or small."""
    return "min" if search.objective == "gap" else "max"


def worst(search: SearchConfig) -> dict[str, float]:
    return {**WORST, "objective": 1.0 if search.objective == "gap" else 0.0}


def standard_errors(
    accuracy: float, forgetting_score: float, *, num_forget: int, num_val: int
) -> dict[str, float]:
    """Return the standard errors of forgetting score and NoMUS, of the images they are measured on.

    The attack is right on a share of a balanced sample of 2 min(num_forget, num_val) images; NoMUS
    is (accuracy + 1 - 2 score) / 2.

    >>> found = standard_errors(0.5, 0.0, num_forget=50, num_val=50)
    >>> found["forgetting_score_se"]
    0.05
    """
    right = 0.5 + forgetting_score
    of_score = right * (1 - right) / (2 * min(num_forget, num_val))
    of_accuracy = accuracy * (1 - accuracy) / num_val
    return {
        "forgetting_score_se": math.sqrt(of_score),
        "nomus_se": math.sqrt(of_accuracy / 4 + of_score),
    }
