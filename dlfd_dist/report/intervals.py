"""Uncertainty over seeds: what counts as one independent value, and the interval of the mean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import stdtrit


def independent_values(values: Iterable[tuple[int, float]]) -> np.ndarray:
    """Return the mean per train seed of (train seed, value) pairs, shape (n,).

    Runs that unlearn one trained model are alike: counted singly they would make the interval too
    short. Where all share one trained model there is nothing else, so each run counts.
    """
    groups: dict[int, list[float]] = {}
    for train_seed, value in values:
        groups.setdefault(train_seed, []).append(value)
    if len(groups) == 1:
        return np.asarray(*groups.values(), dtype=float)
    return np.asarray([np.mean(group) for group in groups.values()], dtype=float)


def t_interval(values: np.ndarray) -> list[float] | None:
    """Return the 95 % Student-t interval of the mean; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return [mean - half, mean + half]
