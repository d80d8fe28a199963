"""What a trial is judged by, all of it on val: the figures it reports and which way they count."""

from __future__ import annotations

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
