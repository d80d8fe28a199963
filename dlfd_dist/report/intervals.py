"""Uncertainty over seeds: what counts as an independent value, and the error of the mean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import fdtrc

from ..metrics.estimates import Estimate

MIN_CROSSED = 5
"""Of fewer train seeds or seeds of unlearning that are crossed, no interval is given."""
POOL_ABOVE = 0.25
"""An axis of seeds whose p is above this counts as part of the rest (Bancroft 1964)."""

Values = Iterable[tuple[int, int, float]]
"""(train seed, seed of unlearning or draw of whom to forget, value)"""


def over_evaluations(values: Values) -> dict[tuple[int, int], float]:
    """Return the mean over evaluations per (train seed, seed).

    Evaluations of one unlearned model are no independent values.
    """
    groups: dict[tuple[int, int], list[float]] = {}
    for train_seed, seed, value in values:
        groups.setdefault((train_seed, seed), []).append(value)
    return {seeds: float(np.mean(group)) for seeds, group in groups.items()}


def seeds_mean(values: Values) -> float | None:
    """Return the mean over train seeds of the means over their runs; None of no value."""
    groups: dict[int, list[float]] = {}
    for (train_seed, _), value in over_evaluations(values).items():
        groups.setdefault(train_seed, []).append(value)
    return float(np.mean([np.mean(group) for group in groups.values()])) if groups else None


def is_crossed(seeds: Iterable[tuple[int, int]]) -> bool:
    """Whether several trained models were unlearned with several seeds each."""
    pairs = set(seeds)
    trainings = {train_seed for train_seed, _ in pairs}
    return len(trainings) > 1 and len(pairs) > len(trainings)


def over_seeds(values: Values) -> Estimate | None:
    """Return the mean over seeds with its error; None where no interval can be given.

    Runs with a train seed each, or of one trained model with a seed each, are independent:
    Student's t over them. Crossed seeds (`crossed_estimate`) need five of either axis.
    """
    of_run = over_evaluations(values)
    if is_crossed(of_run):
        table = _table(of_run)
        return None if table is None else crossed_estimate(table)
    per_run = np.array(list(of_run.values()))
    if len(per_run) < 2:
        return None
    return Estimate(float(per_run.mean()), float(per_run.std(ddof=1) / np.sqrt(len(per_run))),
                    len(per_run) - 1)  # fmt: skip


def t_interval(values: np.ndarray) -> list[float] | None:
    """Return the 95 % Student-t interval of the mean; None of fewer than two values."""
    estimate = over_seeds((i, i, float(value)) for i, value in enumerate(values))
    return None if estimate is None else estimate.interval()


def _table(of_run: dict[tuple[int, int], float]) -> np.ndarray | None:
    """Return the values of the train seeds that have every seed, (T, S); None of too few."""
    seeds = sorted({seed for _, seed in of_run})
    whole = [t for t in sorted({t for t, _ in of_run}) if all((t, s) in of_run for s in seeds)]
    if min(len(whole), len(seeds)) < MIN_CROSSED:
        return None
    return np.array([[of_run[t, s] for s in seeds] for t in whole])


def crossed_estimate(table: np.ndarray) -> Estimate:
    """Return the mean of a table whose rows and columns are both drawn, with its error.

    y_ts = mean + training_t + draw_s + rest_ts, a mixed model of two crossed random effects without
    replicates, by the analysis of variance: the variance of the mean is
    (MS_rows + MS_columns - MS_rest) / (T S), its freedom that of Satterthwaite 1946. An axis that
    is not told from the rest at POOL_ABOVE is pooled with it, or the interval would be far too wide
    where seeds do not matter. `benchmarks/yardstick_seeds.py` measures what it covers.

    Parameters
    ----------
    table : (T, S) values, both at least 2
    """
    num_rows, num_columns = table.shape
    size, mean = table.size, float(table.mean())
    rows, columns = table.mean(1), table.mean(0)
    rest = table - rows[:, None] - columns + mean
    squares = (rest**2).sum()
    freedom = (num_rows - 1) * (num_columns - 1)
    within = squares / freedom
    kept: list[tuple[float, int]] = []
    for means, repeats in ((rows, num_columns), (columns, num_rows)):
        df = len(means) - 1
        own = repeats * ((means - mean) ** 2).sum() / df
        if within == 0 or fdtrc(df, (num_rows - 1) * (num_columns - 1), own / within) < POOL_ABOVE:
            kept.append((float(own), df))
        else:
            squares, freedom = squares + own * df, freedom + df
    pooled = squares / freedom
    if not kept:
        return Estimate(mean, float(np.sqrt(pooled / size)), freedom)
    if len(kept) == 1:
        return Estimate(mean, float(np.sqrt(kept[0][0] / size)), kept[0][1])
    (first, df_first), (second, df_second) = kept
    variance = max(first + second - pooled, first, second)
    if variance == 0:
        return Estimate(mean, 0.0, size - 1)
    parts = first**2 / df_first + second**2 / df_second + pooled**2 / freedom
    df = float(np.clip(variance**2 / parts, min(df_first, df_second), size - 1))
    return Estimate(mean, float(np.sqrt(variance / size)), df)
