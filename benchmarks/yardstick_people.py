"""People: what intervals cover and tests say in equal worlds, by images and by people."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
from scipy.stats import hypergeom, norm
from tqdm import tqdm
from yardstick_worlds import EQUAL, Shape, drawn, old_auc_interval

from dlfd_dist.metrics import Samples, membership_attack, over_forgetting
from dlfd_dist.metrics.mia import auc_over_people, detectable_auc, effective_sizes
from dlfd_dist.metrics.over_forgetting import ALPHA, TAIL
from dlfd_dist.metrics.sides import Sides

PEOPLE = ((8, 8), (16, 16), (16, 100), (50, 50), (200, 200))
ACCURACY_PEOPLE = ((8, 8), (16, 16), (32, 32), (100, 100), (200, 200))
HARD_PEOPLE = ((16, 16), (50, 50), (200, 200))
CORRELATIONS = (0.0, 0.2, 0.5)
IMAGES = (1, 8)
OLD_PART = 20
SLOW_PART = 13
"""Old intervals, and those with permutations, are taken of one in so many simulations."""
PERMUTATIONS = 79
ACCURACY_PART = 10 / 3
"""The same of the attack's accuracy, of whose rows none takes longer than ROW_SECONDS."""
ROW_SECONDS = 120.0


def area_of(sides: tuple[Samples, Samples]) -> tuple[float, list[float]]:
    scores = np.concatenate([side.signals["confidence"] for side in sides])
    return auc_over_people(scores, Sides.of(*sides))


def auc_coverage(shape: Shape, simulations: int) -> tuple[float, float]:
    """Return how often the interval of the AUC holds 0.5, old and new."""
    rng = np.random.default_rng(3)
    new = 0
    for _ in range(simulations):
        low, high = area_of(drawn(EQUAL, shape, rng))[1]
        new += low <= 0.5 <= high
    few, old = max(20, simulations // OLD_PART), 0
    for seed in range(few):
        low, high = old_auc_interval(*drawn(EQUAL, shape, rng), seed)
        old += low <= 0.5 <= high
    return old / few, new / simulations


def accuracy_coverage(shape: Shape, simulations: int) -> tuple[float, int]:
    """Return how often the new interval of the attack's accuracy holds 0.5, and of how many worlds.

    Fewer worlds than asked for where they would take more than ROW_SECONDS of one core.
    """
    rng, covered, worlds, start = np.random.default_rng(4), 0, 0, time.process_time()
    for seed in range(simulations):
        if worlds and time.process_time() - start > ROW_SECONDS:
            break
        worlds += 1
        found = membership_attack(
            *drawn(EQUAL, shape, rng), seed=seed, num_permutations=PERMUTATIONS, num_repeats=1
        )
        covered += found.interval[0] <= 0.5 <= found.interval[1]
    return covered / worlds, worlds


def forgotten_too_hard(shape: Shape, simulations: int) -> tuple[float, float]:
    """Return how often equal worlds are called forgotten too hard, old and new."""
    rng, old, new = np.random.default_rng(5), 0, 0
    for seed in range(simulations):
        sides = drawn(EQUAL, shape, rng)
        interval = area_of(sides)[1]
        found = over_forgetting(*sides, auc_interval=interval, seed=seed, num_permutations=99)
        new += bool(found.flag)
        old += _old_flag(*sides, seed)
    return old / simulations, new / simulations


def _old_flag(forget: Samples, unseen: Samples, seed: int) -> bool:
    losses = [-side.signals["loss"] for side in (forget, unseen)]
    both = np.concatenate(losses)
    in_tail = [int((side > np.quantile(both, 1 - TAIL)).sum()) for side in losses]
    p = hypergeom.sf(in_tail[0] - 1, len(both), len(losses[0]), sum(in_tail))
    return bool(p < ALPHA or old_auc_interval(forget, unseen, seed)[1] < 0.5)


def power_at_detectable(shape: Shape, simulations: int) -> tuple[float, float, float]:
    """Return the smallest AUC said to be found, by images and by people, and how often it is."""
    rng = np.random.default_rng(6)
    sizes = []
    for _ in range(50):
        sides = Sides.of(*(both := drawn(EQUAL, shape, rng)))
        scores = np.concatenate([side.signals["confidence"] for side in both])
        sizes.append((effective_sizes(scores, sides), np.bincount(~sides.is_member)))
    least = detectable_auc(*np.mean([size for size, _ in sizes], axis=0))
    by_images = detectable_auc(*np.mean([images for _, images in sizes], axis=0))
    shift = 2**0.5 * float(norm.ppf(least))
    found = 0
    for _ in range(simulations):
        sides = drawn(lambda latent, member: latent + shift * member, shape, rng)
        found += area_of(sides)[1][0] > 0.5
    return by_images, least, found / simulations


def section(simulations: int) -> str:
    slow, old = max(20, simulations // SLOW_PART), max(20, simulations // OLD_PART)
    shapes = [Shape(people, IMAGES, alike) for people, alike in product(PEOPLE, CORRELATIONS)]
    coverage, errors, power = [], [], []
    for shape in tqdm(shapes, desc="coverage of the AUC"):
        large = max(shape.people) > 150
        before, after = auc_coverage(shape, simulations // 4 if large else simulations)
        coverage.append(f"| {_named(shape)} | {before:.3f} | {after:.3f} |")
    for people, alike in tqdm([*product(ACCURACY_PEOPLE, CORRELATIONS)], desc="accuracy"):
        shape = Shape(people, IMAGES, alike)
        share, worlds = accuracy_coverage(shape, max(20, round(simulations / ACCURACY_PART)))
        errors.append(f"| accuracy, {_named(shape)} ({worlds} worlds) | | {share:.3f} |")
    for people, alike in tqdm([*product(HARD_PEOPLE, CORRELATIONS)], desc="forgotten too hard"):
        shape = Shape(people, (8, 8), alike)
        before, after = forgotten_too_hard(shape, slow)
        power.append(f"| {_named(shape)} | {before:.3f} | {after:.3f} |")
    reach = []
    for people in tqdm(((16, 16), (50, 50)), desc="smallest AUC"):
        shape = Shape(people, (4, 4), 0.5)
        by_images, least, share = power_at_detectable(shape, simulations // 4)
        reach.append(f"| {_named(shape)} | {by_images:.3f} | {least:.3f} | {share:.2f} |")
    return "\n".join([
        "## People",
        "",
        f"Equal worlds; the share of 95 % intervals that hold .5: new {simulations} simulations a "
        f"row ({simulations // 4} of 200 people), old {old} (the percentile bootstrap of images), "
        "accuracy as many as the row says. With 8 people a figure says that it cannot tell; from "
        "16 on .93 to .97 is wanted.",
        "",
        "| AUC of | old | new |",
        "| --- | ---: | ---: |",
        *coverage,
        *errors,
        "",
        f"How often equal worlds are called forgotten too hard ({slow} simulations; at most .05):",
        "",
        "| world | old | new |",
        "| --- | ---: | ---: |",
        *power,
        "",
        "The smallest AUC that would be found in four cases of five:",
        "",
        "| world | said by images (old) | said by people (new) | found at the latter |",
        "| --- | ---: | ---: | ---: |",
        *reach,
    ])  # fmt: skip


def _named(shape: Shape) -> str:
    low, high = shape.images
    images = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"{shape.people[0]} + {shape.people[1]} people, {images} images each, "
        f"correlation {shape.correlation:g}"
    )
