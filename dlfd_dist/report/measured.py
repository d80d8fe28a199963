"""The figures of a run that have a column somewhere, and where in result.json each lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_MIA, _OVER, _NEAR = "mia", "over_forgetting", "against_retrained"
_MOVED, _APART = "against_original", "separation"

PATHS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            "nomus", "test_accuracy", "forgetting_score", "retain_accuracy", "forget_accuracy",
            "val_accuracy",
        )
    },
    "mia_accuracy": (_MIA, "accuracy"),
    "mia_auc": (_MIA, "auc"),
    "mia_tpr_at_1pct": (_MIA, "tpr_at_1pct"),
    "gap_attack": (_MIA, "attacks", "correctness", "accuracy"),
    "mia_paper": ("mia_paper",),
    "mia_paper_floor": ("mia_paper_floor",),
    "nomus_paper": ("nomus_paper",),
    "tail_share": (_OVER, "tail_share"),
    "silhouette": (_APART, "silhouette"),
    "linear_probe_accuracy": (_APART, "linear_probe_accuracy"),
    "scatter_ratio": (_APART, "scatter_ratio"),
    "gap_to_retrained": ("gap_to_retrained",),
    **{
        f"gap_{name}": (_NEAR, "parts", part, "difference")
        for name, part in (
            ("retain", "retain_accuracy"), ("forget", "forget_accuracy"),
            ("test", "test_accuracy"), ("attack", "mia_accuracy"), ("js", "js_divergence"),
        )
    },
    "salun_gap": (_NEAR, "salun_gap"),
    "tug_of_war": (_NEAR, "tug_of_war"),
    "salun_mia": ("salun_mia",),
    "weight_change": (_MOVED, "weight_change", "overall"),
    "loss_barrier": (_MOVED, "loss_barrier"),
    **{
        f"{rate}_{name}": ("resurfacing", "rates", rate, name)
        for rate in ("mild", "strong")
        for name in ("forget_accuracy", "attack_accuracy", "js_divergence")
    },
    **{
        f"divergence_{part}": (_MOVED, "divergence", part) for part in ("retain", "forget", "val")
    },
    "same_answers_forget": (_MOVED, "same_answers", "forget"),
    "synthesised_share": (_MOVED, "synthesised_share"),
    "rf_js": (_MOVED, "rf_js"),
    "rf_js_original": (_MOVED, "rf_js_original"),
    "alike_share": ("alike", "share"),
    **{
        name: (name,)
        for name in (
            "relearn_steps", "relearn_steps_retrained", "anamnesis_index", "resurfaced_accuracy",
            "resurfaced_attack", "wall_seconds", "device_seconds", "peak_memory_mb",
        )
    },
}  # fmt: skip
METRICS = tuple(PATHS)

GAP_INTERVALS = {
    name: (*path[:-1], "interval") for name, path in PATHS.items() if path[1:2] == ("parts",)
}
"""Where the interval over people of a part of the gap lies."""


CUSTOM = "custom_metrics"
"""Where in a result the figures of other packages lie."""


def custom_of(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of other packages that results have, as `custom_metrics.name`."""
    names = {name for result in results for name in result.get(CUSTOM) or {}}
    return [f"{CUSTOM}.{name}" for name in sorted(names)]


def measured(result: Mapping[str, Any], metric: str) -> Any:
    """Return one figure of a result; None where the run has none."""
    return at(result, PATHS.get(metric) or tuple(metric.split(".")))


def at(result: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return what lies at a path; None where a step of it leads nowhere."""
    value: Any = result
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
