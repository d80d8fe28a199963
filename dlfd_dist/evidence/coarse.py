"""Figures as a certificate without names gives them: nobody's number of images can be told by them.

A person may be known by how many images they have. Numbers of images are bands (`plain.band`), and
so must be every share of them: 8 of 11 is 0.727272..., which 44 images can give and 43 cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plain import band, band_ends

COUNTS = {"num_members", "num_nonmembers", "retain_images"}
"""Figures that are numbers of images."""

RATIOS = {"mia_paper_floor", "expected_share"}
"""Figures that follow from numbers of images alone: they are left out."""

EXACT = {
    "test_accuracy", "val_accuracy", "alike", "lr", "margin", "p_value", "weight_change",
    "loss_barrier", "confidence_change", "logit_change", "divergence", "js_divergence", "rf_js",
    "rf_js_original", "zero_retrain_forgetting", "median_difference", "scatter_ratio", "silhouette",
}  # fmt: skip
"""Figures that are no share of the images of the request, nor of those beside it in training."""

STEPS = [digit * 10.0**power for power in range(-9, 0) for digit in (1, 2, 5)]


def share_step(images: Mapping[str, int]) -> float:
    """Return what shares of forget and retain images are rounded to.

    Any number of images of the same band has a share within each step: the step is at least one
    image of the smallest number. It is below the standard error of a share.

    >>> share_step({"forget": 44, "retain": 8000}), share_step({"forget": 1500, "retain": 5500})
    (0.05, 0.001)
    """
    lowest = max(1, min(band_ends(images[part])[0] for part in ("forget", "retain")))
    return next((step for step in STEPS if step >= 1 / lowest), 1.0)


def coarse(figures: Any, images: Mapping[str, int]) -> Any:
    """Return figures in which numbers of images are bands, and shares as coarse as these.

    Parameters
    ----------
    images : how many each part has
    """
    return _coarse(figures, share_step(images))


def _coarse(value: Any, step: float) -> Any:
    if isinstance(value, Mapping):
        return {name: _named(name, inner, step) for name, inner in value.items()}
    if isinstance(value, list):
        return [_coarse(inner, step) for inner in value]
    if isinstance(value, float):
        return round(round(value / step) * step, 9)
    return value


def _named(name: str, value: Any, step: float) -> Any:
    if name in EXACT:
        return value
    if name in RATIOS:
        return None
    return band(value) if name in COUNTS and isinstance(value, int) else _coarse(value, step)
