"""How well the scores of an attack tell models that forgot from models that never saw.

Two worlds hold K models each, paired: model k of both forgets (or never saw) the same people. An
attack gives each model a score per image. Legend: K models, E images.

What chance is, is found by swapping: if forgetting left no trace, either model of a pair could have
been the other. Audits of worlds whose pairs were swapped at random say what equal worlds give, with
whatever the models share and however the fits err (Fisher's randomisation test of paired samples;
Phipson and Smyth 2010 for the p-value).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from .mia import auc

NUM_SWAPS = 1000
"""At most so many worlds with swapped pairs are drawn; fewer where there are fewer."""
PEOPLE_GROUPS = 20
"""People are left out in at most so many groups for the interval."""
LIMITS = (0.01, 0.001)
"""False-positive rates at which the true-positive rate is told."""
LEVEL = 0.05

Attack = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From the confidences of both worlds to the scores of both, (K, E) each; NaN where none is."""


@dataclass(frozen=True)
class Figure:
    """A figure of an attack, and what it would be of equal worlds.

    interval : 95 %
    chance : where 95 % of the audits of swapped worlds lie, the one at hand among them
    p : two-sided, of the figure among those
    """

    value: float
    interval: list[float]
    chance: list[float]
    p: float


@dataclass(frozen=True)
class ToldApart:
    """How well an attack tells the worlds apart.

    auc : chance that an image's score is higher by the unlearned than another's by the retrained
        model of a pair, the mean over pairs; its interval is over pairs and people
    tpr_at_1pct, tpr_at_01pct : unlearned told when 1 % (0.1 %) of the retrained are accused
        falsely, over all models; None where the highest scores are equal and more of the retrained
        have them. The interval is that of the bootstrap over models and people, the fits kept
    num_scores : scores per world; an FPR below 1 / num_scores cannot be resolved
    """

    auc: Figure
    tpr_at_1pct: Figure | None
    tpr_at_01pct: Figure | None
    num_scores: int
    num_models: int
    num_people: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def told_apart(
    attack: Attack,
    unlearned: np.ndarray,
    retrained: np.ndarray,
    person_of_score: np.ndarray,
    *,
    seed: int = 0,
    num_bootstrap: int = 1000,
    num_swaps: int = NUM_SWAPS,
) -> ToldApart | None:
    """Return how well an attack tells two worlds apart; None where it gives no score.

    Parameters
    ----------
    unlearned, retrained : (K, E) confidences
    person_of_score : number of the person of each column of the scores, from 0
    """
    scores = attack(unlearned, retrained)
    ranking = Ranking(*scores)
    if not ranking.here.any():
        return None
    rng = np.random.default_rng(seed)
    models = np.flatnonzero(ranking.here.any(1))
    people = np.unique(person_of_score[ranking.here.any(0)])
    values = _figures(*scores)
    intervals = [
        _interval(scores, person_of_score, rng),
        *_bootstrap(ranking, models, people, person_of_score, num_bootstrap, rng),
    ]
    swapped = [values]
    for swap in _swaps(models, len(unlearned), num_swaps, np.random.default_rng([seed, 1])):
        worlds = np.where(swap, retrained, unlearned), np.where(swap, unlearned, retrained)
        swapped.append(_figures(*attack(*worlds)))
    chances = np.quantile(swapped, [0.025, 0.975], axis=0, method="inverted_cdf").T.tolist()
    # Rounding must not set apart what is equal: few pairs give few different figures.
    tails = np.mean(swapped >= values - 1e-12, 0), np.mean(swapped <= values + 1e-12, 0)
    p_values = np.minimum(1, 2 * np.minimum(*tails))
    all_of_it = [
        Figure(float(value), interval, chance, float(p))
        for value, interval, chance, p in zip(values, intervals, chances, p_values, strict=True)
    ]
    can = map(ranking.resolves, LIMITS)
    return ToldApart(
        all_of_it[0],
        *(figure if ok else None for figure, ok in zip(all_of_it[1:], can, strict=True)),
        num_scores=int(ranking.here.sum()), num_models=len(models), num_people=len(people),
    )  # fmt: skip


def pair_aucs(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC of each pair that has scores, and how many images it is of.

    Within a pair, and not over all models: the fits that judge it are the same for both of its
    models, and equal worlds give 0.5. Over all models a score is compared with one by other fits,
    and they give less.
    """
    pairs = [(auc(a[here], b[here]), here.sum()) for a, b, here in _rows(own, other) if here.any()]
    return np.array([value for value, _ in pairs]), np.array([num for _, num in pairs])


def paired_auc(own: np.ndarray, other: np.ndarray) -> float:
    """Return the mean of pair_aucs, weighed by images; NaN where there is none."""
    aucs, sizes = pair_aucs(own, other)
    return float(np.average(aucs, weights=sizes)) if len(aucs) else float("nan")


def _rows(own: np.ndarray, other: np.ndarray):
    return zip(own, other, ~(np.isnan(own) | np.isnan(other)), strict=True)


def _figures(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    fpr, tpr = Ranking(own, other).roc()
    return np.array([paired_auc(own, other), *(tpr_at(fpr, tpr, limit) for limit in LIMITS)])


def _swaps(
    models: np.ndarray, size: int, num_swaps: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield (size, 1) which pairs to swap: all ways but the one at hand, or so many at random."""
    every = 2 ** len(models) <= num_swaps
    ways = itertools.product([False, True], repeat=len(models)) if every else range(num_swaps)
    for way in itertools.islice(ways, 1 if every else 0, None):
        swap = np.zeros((size, 1), bool)
        swap[models, 0] = way if every else rng.random(len(models)) < 0.5
        yield swap


def least_p(num_models: int) -> float:
    """Return the smallest p that worlds of so many pairs can give.

    To swap all pairs is to swap the names of the worlds, by which a ratio of likelihoods tells the
    same; so two ways of swapping are always the most extreme, on either side.
    """
    return 4 / 2**num_models


def _interval(
    scores: tuple[np.ndarray, np.ndarray], person_of_score: np.ndarray, rng: np.random.Generator
) -> list[float]:
    """Return the 95 % interval of paired_auc: the error over pairs and that over people, added.

    Pairs share fits, so that it is a little too narrow with few of them: of equal worlds with 16 to
    24 models it missed 0.5 in 7 to 12 % of 300 swaps, where 5 % are wanted. All of 0 to 1 where
    there is one pair, or no two differ: that they agree is no measure of how far they might not.
    """
    aucs, sizes = pair_aucs(*scores)
    n = len(aucs)
    if np.ptp(aucs) == 0:
        return [0.0, 1.0]
    value = float(np.average(aucs, weights=sizes))
    over_pairs = n / (n - 1) * ((sizes / sizes.sum() * (aucs - value)) ** 2).sum()
    half = float(
        stdtrit(n - 1, 0.975) * np.sqrt(over_pairs + _over_people(scores, person_of_score, rng))
    )
    return [max(0.0, value - half), min(1.0, value + half)]


def _over_people(
    scores: tuple[np.ndarray, np.ndarray], person_of_score: np.ndarray, rng: np.random.Generator
) -> float:
    """Return the variance of paired_auc over people, by the jackknife over groups of them."""
    people = np.unique(person_of_score[~np.isnan(scores[0]).all(0)])
    groups = np.array_split(rng.permutation(people), min(len(people), PEOPLE_GROUPS))
    without = np.array([
        paired_auc(*(np.where(np.isin(person_of_score, group), np.nan, s) for s in scores))
        for group in groups
    ])  # fmt: skip
    without = without[~np.isnan(without)]
    n = len(without)
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum()) if n else 0.0


def _bootstrap(
    ranking: Ranking, models: np.ndarray, people: np.ndarray, person_of_score: np.ndarray,
    num_bootstrap: int, rng: np.random.Generator,
) -> list[list[float]]:  # fmt: skip
    """Return the 95 % intervals of the TPR at each limit; models and people are drawn."""
    sizes = (len(ranking.here), int(person_of_score.max()) + 1)
    resampled = []
    for _ in range(num_bootstrap):
        of_model, of_person = _drawn(models, sizes[0], rng), _drawn(people, sizes[1], rng)
        weights = of_model[:, None] * of_person[person_of_score]
        if weights[ranking.here].any():
            rates = ranking.roc(weights)
            resampled.append([tpr_at(*rates, limit) for limit in LIMITS])
    resampled = resampled or [[tpr_at(*ranking.roc(), limit) for limit in LIMITS]]
    return np.quantile(np.array(resampled), [0.025, 0.975], axis=0).T.tolist()


def _drawn(members: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each number below `size` was drawn; those that are no members never are."""
    return np.bincount(rng.choice(members, len(members)), minlength=size)


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
