"""The attack: how much of a known leakage it finds, what it says of equal worlds, and its power."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm
from yardstick_worlds import (
    EQUAL,
    WORLDS,
    Confidence,
    Shape,
    best_threshold,
    drawn,
    old_accuracy,
    old_interval,
)

from dlfd_dist.metrics import Samples, membership_attack, quick_attack

OLD_PART = 5
"""The old attack is fifteen times slower, and is run on one in so many simulations."""
PERMUTATIONS = 79
SHAPES = {"50 + 50 people x 4": Shape(), "20 + 60 people x 8": Shape((20, 60), (8, 8), 0.3)}

Attack = Callable[[Samples, Samples, int], float]


def new_accuracy(members: Samples, nonmembers: Samples, seed: int) -> float:
    return quick_attack(members, nonmembers, seed=seed).accuracy


def gap_accuracy(members: Samples, nonmembers: Samples, _seed: int) -> float:
    """Return what guessing by correctness gives."""
    right = [side.signals["correctness"].mean() for side in (members, nonmembers)]
    return float(0.5 + (right[0] - right[1]) / 2)


def advantages(attack: Attack, world: Confidence, shape: Shape, simulations: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.array([attack(*drawn(world, shape, rng), seed) - 0.5 for seed in range(simulations)])


def shares(attack: Attack, world: Confidence, shape: Shape, simulations: int) -> np.ndarray:
    """Return which share of the best threshold's advantage an attack finds, of each simulation.

    Both are judged on the same draw: what a draw happens to hold, which is most of the error of
    either, falls out of their difference.
    """
    best, rng, beyond = best_threshold(world), np.random.default_rng(7), []
    for seed in range(simulations):
        sides = drawn(world, shape, rng)
        beyond.append((attack(*sides, seed) - 0.5 - best.on(*sides)) / best.advantage)
    return 1 + np.array(beyond)


def mean_and_error(values: np.ndarray) -> str:
    return f"{values.mean():.3f} +- {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def detected(world: Confidence, shape: Shape, simulations: int) -> tuple[float, float]:
    """Return how often the interval lies above chance, old and new."""
    rng, old, new = np.random.default_rng(11), 0, 0
    for seed in range(simulations):
        sides = drawn(world, shape, rng)
        old += old_interval(*sides, seed)[0] > 0.5
        found = membership_attack(*sides, seed=seed, num_permutations=PERMUTATIONS, num_repeats=1)
        new += found.interval[0] > 0.5
    return old / simulations, new / simulations


def section(simulations: int) -> str:
    few = max(20, simulations // OLD_PART)
    strength, power = [], []
    cases = [(name, world, *shape) for name, world in WORLDS.items() for shape in SHAPES.items()]
    for name, world, size, shape in tqdm(cases, desc="strength of the attack"):
        best = best_threshold(world).advantage
        old, gap, new = (
            mean_and_error(shares(attack, world, shape, num))
            for attack, num in (
                (old_accuracy, few), (gap_accuracy, simulations), (new_accuracy, simulations),
            )
        )  # fmt: skip
        strength.append(f"| {name}, {size} | {0.5 + best:.3f} | {old} | {gap} | {new} |")
    for size, shape in tqdm(SHAPES.items(), desc="equal worlds"):
        old, gap, new = (
            mean_and_error(0.5 + advantages(attack, EQUAL, shape, num))
            for attack, num in (
                (old_accuracy, few), (gap_accuracy, simulations), (new_accuracy, simulations),
            )
        )  # fmt: skip
        strength.append(f"| equal worlds, {size}: accuracy | .500 | {old} | {gap} | {new} |")
    shapes = {"16 + 16 people x 8, correlation .5": Shape((16, 16), (8, 8), 0.5), **SHAPES}
    worlds = {"equal worlds": EQUAL, **WORLDS}
    for name, world in tqdm(worlds.items(), desc="power of the attack"):
        for size in list(shapes)[:2]:
            old, new = detected(world, shapes[size], few)
            wanted = "at most .025" if world is EQUAL else "more"
            power.append(f"| {name}, {size} | {old:.3f} | {new:.3f} | {wanted} |")
    return "\n".join([
        "## Attack",
        "",
        "Share of the advantage over chance of the best threshold there is, both judged on the "
        f"same draw, mean of {simulations} simulations +- its standard error (the old attack: "
        f"{few}). Intra-class correlation .2 and .3. New is chosen inside the training folds, old "
        "is logistic regression on the confidence; wanted is at least .95.",
        "",
        "| world | best accuracy | old | guessing by correctness | new |",
        "| --- | ---: | ---: | ---: | ---: |",
        *strength,
        "",
        f"How often the interval of the accuracy lies above chance ({few} simulations):",
        "",
        "| world | old (images) | new (people) | wanted |",
        "| --- | ---: | ---: | --- |",
        *power,
    ])  # fmt: skip
