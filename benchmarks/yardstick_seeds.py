"""Seeds: what an interval over crossed seeds covers, and what a test finds, old against new.

    python -m benchmarks.yardstick_seeds [--tables 2000]

Simulated: a figure is a training's own, a seed's (or a draw's of whom to forget) own, and the rest,
each normal with the standard deviation that a row names; the truth is 0. Old is the hierarchical
bootstrap of trainings and then of their seeds, and tests of DLFD against twelve methods; new is
`report.intervals.over_seeds` and the four contrasts named before the runs. `section` is the part of
benchmarks/yardstick.py that this is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from dlfd_dist.metrics import Estimate
from dlfd_dist.report.contrasts import LEVEL, MARGIN, holm
from dlfd_dist.report.intervals import over_seeds

SHAPES = ((3, 3), (5, 5), (10, 5))
"""Trainings x seeds of unlearning each."""
SPREADS = {
    "training": (1.0, 0.0, 0.1),
    "seed": (0.0, 1.0, 0.1),
    "both": (1.0, 1.0, 0.1),
    "all three": (1.0, 1.0, 1.0),
    "training, some rest": (1.0, 0.3, 0.5),
    "mostly rest": (0.3, 0.3, 1.0),
    "rest alone": (0.0, 0.0, 1.0),
}
EFFECTS = (0.0, 1.0, 2.0, 3.0)
"""True differences in standard deviations of a paired difference."""
NUM_SEEDS, OLD_TESTS, NEW_TESTS = 5, 12, 4
REDRAWN = 400
WANTED = (0.93, 0.97)
"""The coverage that an interval of 95 % may have."""
COVERED = ".93 to .97, or none below five"
Interval = Callable[[np.ndarray, np.random.Generator], Sequence[float] | None]


@dataclass(frozen=True)
class Row:
    """One figure, old against new; None where nothing is said."""

    what: str
    old: float | None
    new: float | None
    wanted: str


def simulated(shape: tuple[int, int], spread: Sequence[float], rng: np.random.Generator):
    trainings, seeds = shape
    return (
        spread[0] * rng.normal(size=(trainings, 1))
        + spread[1] * rng.normal(size=(1, seeds))
        + spread[2] * rng.normal(size=shape)
    )


def hierarchical(table: np.ndarray, rng: np.random.Generator) -> Sequence[float]:
    """Return the percentile interval of trainings drawn anew, and of each its seeds."""
    trainings, seeds = table.shape
    rows = rng.integers(0, trainings, (REDRAWN, trainings, 1))
    columns = rng.integers(0, seeds, (REDRAWN, trainings, seeds))
    return np.quantile(table[rows, columns].mean((1, 2)), [0.025, 0.975]).tolist()


def mixed(table: np.ndarray, _rng: np.random.Generator) -> Sequence[float] | None:
    found = over_seeds((t, 1000 + s, float(v)) for (t, s), v in np.ndenumerate(table))
    return None if found is None else found.interval()


def coverage(
    interval: Interval, shape: tuple[int, int], spread: Sequence[float], tables: int, seed: int = 0
) -> float | None:
    """Return the share of tables whose interval holds the truth; None where there is none."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(tables):
        ends = interval(simulated(shape, spread, rng), rng)
        if ends is None:
            return None
        held += ends[0] <= 0 <= ends[1]
    return held / tables


def found(effect: float, num_tests: int, tables: int, seed: int = 1) -> float:
    """Return how often one true difference is found among `num_tests` at five seeds.

    The others are 0; p values are Holm-adjusted over all of them.
    """
    rng = np.random.default_rng(seed)
    shifts = np.zeros(num_tests)
    shifts[0] = effect
    hits = 0
    for _ in range(tables):
        differences = shifts[:, None] + rng.normal(size=(num_tests, NUM_SEEDS))
        tests: Any = ttest_1samp(differences, 0, axis=1)
        hits += holm(tests.pvalue)[0] < LEVEL
    return hits / tables


def called_tied(effect: float, spread: float, tables: int, seed: int = 2) -> tuple[float, float]:
    """Return how often a true difference is called a tie: old, where none is found; new, by tests.

    Parameters
    ----------
    effect, spread : the difference and its standard deviation, in units of the figure
    """
    rng = np.random.default_rng(seed)
    old = new = 0
    for _ in range(tables):
        values = effect + spread * rng.normal(size=NUM_SEEDS)
        estimate = Estimate(
            float(values.mean()), float(values.std(ddof=1) / NUM_SEEDS**0.5), NUM_SEEDS - 1
        )
        old += OLD_TESTS * estimate.p >= LEVEL
        new += NEW_TESTS * estimate.p_equivalent(MARGIN) < LEVEL
    return old / tables, new / tables


def rows(tables: int = 2000) -> list[Row]:
    made = [
        Row(
            f"coverage of the 95 % interval, {shape[0]} trainings x {shape[1]} seeds, {name}",
            coverage(hierarchical, shape, spread, tables // 4),
            coverage(mixed, shape, spread, tables),
            COVERED,
        )
        for shape in SHAPES
        for name, spread in SPREADS.items()
    ]
    made += [
        Row(
            f"a difference of {effect:g} sd is found at {NUM_SEEDS} seeds "
            f"({OLD_TESTS} tests, {NEW_TESTS} contrasts)",
            found(effect, OLD_TESTS, tables), found(effect, NEW_TESTS, tables),
            "at most .05" if effect == 0 else "more",
        )
        for effect in EFFECTS
    ]  # fmt: skip
    for effect, spread in ((0.06, 0.05), (0.03, 0.01), (0.0, 0.01)):
        wanted = "often" if effect == 0 else "at most .05"
        what = f"a difference of {effect:g} (sd {spread:g}) is called a tie within {MARGIN:g}"
        made.append(Row(what, *called_tied(effect, spread, tables), wanted))
    return made


def section(tables: int = 2000) -> str:
    """Return the Markdown section of benchmarks/yardstick.py."""
    lines = [
        "## Seeds",
        "",
        f"{tables} simulated tables a row, {tables // 4} for the bootstrap.",
        "",
        "| what | old | new | wanted |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {r.what} | {_text(r.old)} | {_text(r.new)} | {r.wanted}{outside(r, tables)} |"
        for r in rows(tables)
    ]
    return "\n".join(lines) + "\n"


def outside(row: Row, tables: int) -> str:
    """Return by how much a new coverage misses WANTED, beside its error; empty where it does not.

    The error is the standard error of a share of so many tables.
    """
    if row.wanted != COVERED or row.new is None:
        return ""
    low, high = WANTED
    apart = max(low - row.new, row.new - high)
    if apart <= 0:
        return ""
    error = (row.new * (1 - row.new) / tables) ** 0.5
    side, end = ("above", high) if row.new > high else ("below", low)
    size = "less" if apart < error else "more"
    return f"; {side} {_text(end)} by {apart:.3f}, {size} than its error of {error:.3f}"


def _text(share: float | None) -> str:
    return "none" if share is None else f"{share:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=2000)
    print(section(parser.parse_args().tables))


if __name__ == "__main__":
    main()
