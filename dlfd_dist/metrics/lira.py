"""U-LiRA: per image, is a model that was made to forget it told from one that never saw it?

Two worlds hold K models each, paired: model k of both forgets (or never saw) the same people.
A value is the logit-scaled confidence of a model in the true label of an image. Legend: K models,
E images. Sources: Hayes et al. 2024, "Inexact unlearning needs more careful evaluations",
algorithm 1; Carlini et al. 2022 (LiRA), sections V and VI-D.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

POOLED_BELOW = 64
"""With fewer models a variance per image is noise, so that one is taken over all images."""
MIN_MODELS = 3
"""Without the pair under test two values must be left to fit a variance to."""
LIMITS = (0.01, 0.001)
"""False-positive rates at which the true-positive rate is told."""
_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class ULiRA:
    """How well the likelihood ratio tells the two worlds apart.

    auc : chance that an unlearned model's score is above a retrained one's; 0.5 is chance
    tpr_at_1pct, tpr_at_01pct : unlearned told when 1 % (0.1 %) of the retrained are accused
        falsely; None where the highest scores are equal and more of the retrained have them
    *_interval : 95 % bootstrap intervals over models and people, the fits kept
    num_scores : scores per world; an FPR below 1 / num_scores cannot be resolved
    """

    auc: float
    tpr_at_1pct: float | None
    tpr_at_01pct: float | None
    auc_interval: list[float]
    tpr_at_1pct_interval: list[float] | None
    tpr_at_01pct_interval: list[float] | None
    num_scores: int
    num_models: int
    num_people: int

    @property
    def at_chance(self) -> bool:
        return self.auc_interval[0] <= 0.5 <= self.auc_interval[1]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"at_chance": self.at_chance}


def log_ratios(
    unlearned: np.ndarray, retrained: np.ndarray, *, pooled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return log N(x; unlearned fit) - log N(x; retrained fit) of every value, shapes (K, E).

    Model k of both worlds is left out of the fits its values are judged by: then both fits rest on
    equally many values, and two equal worlds give chance.

    Parameters
    ----------
    unlearned, retrained : (K, E) confidences; NaN where model k does not forget the image
    pooled : one variance per world, the mean over images, in place of one per image

    Returns NaN where a value is missing or fewer than 3 models hold the image.
    """
    here = ~(np.isnan(unlearned) | np.isnan(retrained))
    here &= here.sum(0) >= MIN_MODELS
    fits = [
        _fits_without(np.where(here, world, np.nan), pooled) for world in (unlearned, retrained)
    ]
    own, other = (
        np.where(here, _log_density(world, *fits[0]) - _log_density(world, *fits[1]), np.nan)
        for world in (unlearned, retrained)
    )
    return own, other


def _fits_without(world: np.ndarray, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each image over the models but k, shapes (K, E)."""
    here = ~np.isnan(world)
    num = here.sum(0)
    # About the mean of all, or squares of large values would swallow a small variance.
    centre = np.where(here, world, 0).sum(0) / np.maximum(num, 1)
    values = np.where(here, world - centre, 0.0)
    left = np.maximum(num - here, 1)
    mean = (values.sum(0) - values) / left
    squares = (values**2).sum(0) - values**2 - left * mean**2
    freedom = np.where(num >= MIN_MODELS, num - here - 1, 0)
    if pooled:
        total, sizes = squares * (freedom > 0), freedom
        variance = (total.sum(1) / np.maximum(sizes.sum(1), 1))[:, None] + np.zeros_like(world)
    else:
        variance = squares / np.maximum(freedom, 1)
    return mean + centre, np.maximum(variance, _SMALLEST_VARIANCE)


def _log_density(values: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return -0.5 * (np.log(2 * np.pi * variance) + (values - mean) ** 2 / variance)


def by_person(scores: np.ndarray, person_of_image: np.ndarray) -> np.ndarray:
    """Return the sum over each person's images, shape (K, P): a person is asked about as a whole.

    NaN where a model has no score of any of them.
    """
    num = int(person_of_image.max()) + 1 if len(person_of_image) else 0
    sums, counts = np.zeros((len(scores), num)), np.zeros((len(scores), num))
    filled = np.nan_to_num(scores)
    for row in range(len(scores)):
        np.add.at(sums[row], person_of_image, filled[row])
        np.add.at(counts[row], person_of_image, ~np.isnan(scores[row]))
    return np.where(counts > 0, sums, np.nan)


class Ranking:
    """The scores of both worlds in one order, so that any weighting of models and people is quick.

    Parameters
    ----------
    unlearned, retrained : (K, E) scores, NaN where there is none
    """

    def __init__(self, unlearned: np.ndarray, retrained: np.ndarray):
        self.here = ~np.isnan(unlearned)
        scores = np.r_[unlearned[self.here], retrained[self.here]]
        order = np.argsort(-scores, kind="stable")
        self.order = order
        self.is_unlearned = order < len(order) // 2
        ordered = scores[order]
        # The last of equal scores: a threshold takes all of them or none.
        self.ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])

    def roc(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return false- and true-positive rates from (0, 0) to (1, 1).

        weights : (K, E) of the scores; None for equal ones
        """
        plain = np.ones(self.here.sum()) if weights is None else weights[self.here]
        weight = np.r_[plain, plain][self.order]
        true = np.cumsum(weight * self.is_unlearned)[self.ends]
        false = np.cumsum(weight * ~self.is_unlearned)[self.ends]
        return np.r_[0, false / false[-1]], np.r_[0, true / true[-1]]

    def resolves(self, limit: float) -> bool:
        """Whether a threshold exists that a share of at most `limit` of the retrained reaches.

        Of equal scores at the top a threshold takes all; a single highest score is always one.
        """
        highest = int(self.ends[0]) + 1
        false = (~self.is_unlearned[:highest]).sum() / (len(self.order) // 2)
        return highest == 1 or bool(false <= limit)


def area(fpr: np.ndarray, tpr: np.ndarray) -> float:
    """Return the area under a ROC curve; ties count half."""
    return float((np.diff(fpr) * (tpr[1:] + tpr[:-1])).sum() / 2)


def tpr_at(fpr: np.ndarray, tpr: np.ndarray, limit: float) -> float:
    """Return the largest true-positive rate at a false-positive rate of at most `limit`."""
    return float(tpr[fpr <= limit + 1e-12].max())


def ulira(
    unlearned: np.ndarray,
    retrained: np.ndarray,
    person_of_image: np.ndarray,
    *,
    seed: int = 0,
    num_bootstrap: int = 1000,
) -> ULiRA | None:
    """Return how well the scores of `log_ratios` (or `by_person`) tell the worlds apart.

    Parameters
    ----------
    unlearned, retrained : (K, E) scores
    person_of_image : (E,) number of the person of each column, from 0

    The bootstrap draws models (with both their worlds) and people, each with replacement, and
    weighs a score by how often both were drawn. None where there is no score.
    """
    ranking = Ranking(unlearned, retrained)
    if not ranking.here.any():
        return None
    models = np.flatnonzero(ranking.here.any(1))
    people = np.unique(person_of_image[ranking.here.any(0)])
    rng, sizes = np.random.default_rng(seed), (len(unlearned), int(person_of_image.max()) + 1)
    auc, tpr_1, tpr_01 = _figures(*ranking.roc())
    found = []
    for _ in range(num_bootstrap):
        of_model, of_person = _drawn(models, sizes[0], rng), _drawn(people, sizes[1], rng)
        weights = of_model[:, None] * of_person[person_of_image]
        if weights[ranking.here].any():
            found.append(_figures(*ranking.roc(weights)))
    found = found or [(auc, tpr_1, tpr_01)]
    intervals = np.quantile(np.array(found), [0.025, 0.975], axis=0).T.tolist()
    can_1, can_01 = map(ranking.resolves, LIMITS)
    return ULiRA(
        auc=auc, auc_interval=intervals[0],
        tpr_at_1pct=tpr_1 if can_1 else None,
        tpr_at_1pct_interval=intervals[1] if can_1 else None,
        tpr_at_01pct=tpr_01 if can_01 else None,
        tpr_at_01pct_interval=intervals[2] if can_01 else None,
        num_scores=int(ranking.here.sum()), num_models=len(models), num_people=len(people),
    )  # fmt: skip


def _drawn(members: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each number below `size` was drawn; those that are no members never are."""
    return np.bincount(rng.choice(members, len(members)), minlength=size)


def _figures(fpr: np.ndarray, tpr: np.ndarray) -> tuple[float, float, float]:
    return area(fpr, tpr), tpr_at(fpr, tpr, LIMITS[0]), tpr_at(fpr, tpr, LIMITS[1])
