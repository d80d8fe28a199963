"""Simulated worlds for the yardstick: forgotten and unseen people, and what a model says of them.

The old attack stands here as the baseline: logistic regression on the logit-scaled confidence, on
five balanced draws of images, with intervals from a bootstrap of images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from dlfd_dist.metrics import SIGNALS, Samples, auc

NUM_CLASSES = 7
Confidence = Callable[[np.ndarray, bool], np.ndarray]


def _gaussian(latent: np.ndarray, member: bool) -> np.ndarray:
    return 1 + 2 * (latent + 0.8 * member)


def _heavy_tailed(latent: np.ndarray, member: bool) -> np.ndarray:
    return 2 * np.sinh(1.5 * latent + 1.2 * member)


def _like_ck48(latent: np.ndarray, member: bool) -> np.ndarray:
    """All forgotten images right, .77 of the unseen; what is right is saturated on both sides."""
    wrong = (latent < -0.74) & (not member)
    return np.where(wrong, -4 + 3 * latent, 12 + 3 * latent)


def _equal(latent: np.ndarray, member: bool) -> np.ndarray:
    return 1 + 2 * latent


WORLDS: dict[str, Confidence] = {
    "Gaussian": _gaussian,
    "heavy-tailed": _heavy_tailed,
    "like CK+48 (1.0 against .77)": _like_ck48,
}
EQUAL = _equal


@dataclass(frozen=True)
class Shape:
    """Of both sides: people, images of each (a range), and how alike those are."""

    people: tuple[int, int] = (50, 50)
    images: tuple[int, int] = (4, 4)
    correlation: float = 0.2


def drawn(world: Confidence, shape: Shape, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Return forgotten and unseen samples of a world."""
    sides, first = [], 0
    for member, num in zip((True, False), shape.people, strict=True):
        sizes = rng.integers(shape.images[0], shape.images[1] + 1, num)
        who = np.repeat(np.arange(num), sizes)
        person, image = rng.normal(size=num)[who], rng.normal(size=len(who))
        latent = shape.correlation**0.5 * person + (1 - shape.correlation) ** 0.5 * image
        sides.append(_samples(world(latent, member), first + who, rng))
        first += num
    return sides[0], sides[1]


def _samples(confidence: np.ndarray, who: np.ndarray, rng: np.random.Generator) -> Samples:
    """Return samples of such a confidence in the true class, which is class 0."""
    others = rng.normal(0, 1, (len(confidence), NUM_CLASSES - 1))
    logits = np.concatenate([(confidence + logsumexp(others, axis=1))[:, None], others], axis=1)
    return Samples.of(logits, np.zeros(len(confidence), np.int64), who)


@dataclass(frozen=True)
class Threshold:
    """The best threshold that a world has: samples of the signal up to it count as unseen."""

    signal: str
    value: float
    advantage: float
    """Its accuracy above chance in the whole world, 0..0.5."""

    def on(self, members: Samples, nonmembers: Samples) -> float:
        """Return its accuracy above chance on a draw; the mean over draws is `advantage`."""
        below = [(side.signals[self.signal] <= self.value).mean() for side in (members, nonmembers)]
        return float(below[1] - below[0]) / 2


@cache
def best_threshold(world: Confidence) -> Threshold:
    """Return the best threshold on any signal, from 40,000 people a side with an image each."""
    sides = drawn(world, Shape((40_000, 40_000), (1, 1)), np.random.default_rng(99))
    thresholds = []
    for name in SIGNALS:
        values = [np.sort(side.signals[name]) for side in sides]
        levels = np.unique(np.concatenate(values))
        below = [np.searchsorted(side, levels, "right") / len(side) for side in values]
        place = (below[1] - below[0]).argmax()
        gain = float(below[1][place] - below[0][place]) / 2
        thresholds.append(Threshold(name, float(levels[place]), gain))
    return max(thresholds, key=lambda threshold: threshold.advantage)


def old_accuracy(members: Samples, nonmembers: Samples, seed: int) -> float:
    """Return the accuracy of the old attack."""
    right = _old_right(members.signals["confidence"], nonmembers.signals["confidence"], seed)
    return float(np.mean([np.nanmean(side) for side in right]))


def old_interval(members: Samples, nonmembers: Samples, seed: int) -> np.ndarray:
    """Return the old interval of the accuracy: images drawn anew, thresholds kept."""
    right = _old_right(members.signals["confidence"], nonmembers.signals["confidence"], seed)
    right, rng = [side[~np.isnan(side)] for side in right], np.random.default_rng([seed, 1])
    again = [side[rng.integers(0, len(side), (200, len(side)))].mean(1) for side in right]
    return np.quantile((again[0] + again[1]) / 2, [0.025, 0.975])


def old_auc_interval(members: Samples, nonmembers: Samples, seed: int) -> np.ndarray:
    """Return the old interval of the AUC: images drawn anew."""
    scores = members.signals["confidence"], nonmembers.signals["confidence"]
    rng = np.random.default_rng([seed, 1])
    areas = [
        auc(*(side[rng.integers(0, len(side), len(side))] for side in scores)) for _ in range(100)
    ]
    return np.quantile(areas, [0.025, 0.975])


def _old_right(members: np.ndarray, nonmembers: np.ndarray, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng([seed, 0])
    size = min(len(members), len(nonmembers))
    sums = [np.zeros(len(members)), np.zeros(len(nonmembers))]
    counts = [np.zeros(len(members)), np.zeros(len(nonmembers))]
    truth = np.repeat((1.0, 0.0), size)
    for _ in range(5):
        chosen = [rng.permutation(len(side))[:size] for side in (members, nonmembers)]
        scores = np.r_[members[chosen[0]], nonmembers[chosen[1]]]
        right = np.empty(2 * size)
        folds = StratifiedKFold(5, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in folds.split(scores, truth):
            scaled = ((scores - scores[train].mean()) / (scores[train].std() or 1)).reshape(-1, 1)
            attack = LogisticRegression().fit(scaled[train], truth[train])
            right[test] = attack.predict(scaled[test]) == truth[test]
        for side, rows in enumerate(chosen):
            sums[side][rows] += right[side * size : (side + 1) * size]
            counts[side][rows] += 1
    with np.errstate(invalid="ignore"):
        return [total / count for total, count in zip(sums, counts, strict=True)]
