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


def over_evaluations(values: Iterable[tuple[int, int, float]]) -> dict[tuple[int, int], float]:
    """Return the mean over evaluations per (train seed, seed) of (train seed, seed, value) triples.

    Evaluations of one unlearned model are no independent values either.
    """
    groups: dict[tuple[int, int], list[float]] = {}
    for train_seed, seed, value in values:
        groups.setdefault((train_seed, seed), []).append(value)
    return {seeds: float(np.mean(group)) for seeds, group in groups.items()}


def hierarchical_interval(
    values: Iterable[tuple[int, int, float]], *, num_bootstrap: int = 1000, seed: int = 0
) -> list[float] | None:
    """Return the 95 % percentile interval of the mean over (train seed, seed, value) triples.

    Seeds are drawn with replacement level by level: trainings, of each the unlearning seeds, of
    each the evaluations. The mean weighs trainings alike. With few trainings it is too short, as
    any bootstrap is: below three of them None. Of one training its seeds of unlearning
    take their place. Source: Davison and Hinkley 1997, section 3.8.
    """
    tree: dict[int, dict[int, list[float]]] = {}
    for train_seed, unlearn_seed, value in values:
        tree.setdefault(train_seed, {}).setdefault(unlearn_seed, []).append(value)
    if len(tree) == 1:
        (branch,) = tree.values()
        tree = {seed: {seed: leaf} for seed, leaf in branch.items()}
    if len(tree) < 3:
        return None
    rng = np.random.default_rng(seed)
    branches = [[np.asarray(leaf) for leaf in branch.values()] for branch in tree.values()]
    means = [
        np.mean([
            _redrawn(branches[t], rng) for t in rng.integers(0, len(branches), len(branches))
        ])
        for _ in range(num_bootstrap)
    ]  # fmt: skip
    return [float(v) for v in np.quantile(means, [0.025, 0.975])]


def _redrawn(leaves: list[np.ndarray], rng: np.random.Generator) -> float:
    """Return the mean over leaves drawn anew, of each its values drawn anew."""
    drawn = [leaves[u] for u in rng.integers(0, len(leaves), len(leaves))]
    values = [v[rng.integers(0, len(v), len(v))].mean() if len(v) > 1 else v[0] for v in drawn]
    return sum(values) / len(values)


def t_interval(values: np.ndarray) -> list[float] | None:
    """Return the 95 % Student-t interval of the mean; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return [mean - half, mean + half]
