"""Errors of figures over people: the images of a person say nearly the same, and count as such.

Each side of an attack is a weighted mean over images whose persons are independent. What a person
adds to it is summed before it is squared (Obuchowski 1997 for the AUC, from DeLong et al. 1988),
and few people are met by Student's t with the degrees of freedom of Satterthwaite 1946.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit, stdtrit

MIN_PEOPLE = 16
"""People a side from which intervals cover what they claim; with fewer a figure cannot tell."""


def as_numbers(people: np.ndarray) -> np.ndarray:
    """Return people as numbers from 0."""
    return np.unique(people, return_inverse=True)[1]


def sum_by_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Return the sum of the values of each person that has one."""
    return np.bincount(as_numbers(people), values)


def mean_variance(values: np.ndarray, weights: np.ndarray, people: np.ndarray) -> float:
    """Return the variance over people of a weighted mean: the jackknife that leaves one out.

    Parameters
    ----------
    values, weights, people : (n,); the weights need no sum of one, and people of weight 0 no part
    """
    counted = weights > 0
    values, weights, people = values[counted], weights[counted], people[counted]
    if not len(values):
        return 0.0
    share = weights / weights.sum()
    parts = sum_by_person(share * (values - share @ values), people)
    left = np.maximum(1 - sum_by_person(share, people), 0.5)
    return float((len(parts) - 1) / len(parts) * ((parts / left) ** 2).sum())


def num_equal_people(weights: np.ndarray, people: np.ndarray) -> float:
    """Return how many people of equal weight vary as little as these do (Kish 1965)."""
    of_person = sum_by_person(weights, people)
    return float(of_person.sum() ** 2 / max((of_person**2).sum(), 1e-300))


def t_interval(
    value: float, variances: Sequence[float], people: Sequence[float], *, level: float = 0.95
) -> list[float]:
    """Return an interval for a share that is a sum of two independent means, taken as its logit.

    Parameters
    ----------
    variances, people : of either side; people as num_equal_people counts them. A value of 0 or 1
        without any variance has the bound that n people without an exception leave
    """
    total = sum(variances)
    if total <= 1e-20 or not 0 < value < 1:
        bound = ((1 - level) / 2) ** (1 / max(min(people), 1))
        edges = {1.0: [bound, 1.0], 0.0: [0.0, 1 - bound]}
        return edges.get(value, [value, value])
    freedom = sum(v**2 / max(n - 1, 1) for v, n in zip(variances, people, strict=True))
    half = float(stdtrit(total**2 / freedom, 0.5 + level / 2)) * total**0.5
    half /= value * (1 - value)
    return [float(expit(logit(value) + sign * half)) for sign in (-1, 1)]


def placements(
    members: np.ndarray, nonmembers: np.ndarray, weights: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each member what share of nonmembers scores less, for each of those what of
    members scores more; ties count half.

    Parameters
    ----------
    weights : of members and nonmembers; None for equal ones
    """
    if weights is None:
        weights = [np.full(len(side), 1 / len(side)) for side in (members, nonmembers)]
    placed = []
    for scores, others, weight in (
        (members, nonmembers, weights[1]), (-nonmembers, -members, weights[0]),
    ):  # fmt: skip
        order = np.argsort(others, kind="stable")
        below = np.r_[0, np.cumsum(weight[order])] / weight.sum()
        ordered = others[order]
        left, right = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
        placed.append((below[left] + below[right]) / 2)
    return placed[0], placed[1]


def intraclass_correlation(scores: np.ndarray, sides: np.ndarray, people: np.ndarray) -> float:
    """Return how alike the ranks of a person's images are, 0..1, within sides.

    The estimate of the analysis of variance; 0 where nobody has two images.

    Parameters
    ----------
    sides : (n,) number of the side, and class, of each image
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    groups = as_numbers(sides)
    ranks = ranks - (np.bincount(groups, ranks) / np.bincount(groups))[groups]
    who = as_numbers(people)
    sizes = np.bincount(who)
    n, p, g = len(ranks), len(sizes), int(groups.max()) + 1
    if n == p or p <= g:
        return 0.0
    means = np.bincount(who, ranks) / sizes
    within = ((ranks - means[who]) ** 2).sum() / (n - p)
    between = (sizes * means**2).sum() / (p - g)
    usual = (n - (sizes**2).sum() / n) / (p - 1)
    total = between + (usual - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0


def effective_size(weights: np.ndarray, people: np.ndarray, correlation: float) -> float:
    """Return how many independent images say as much as these, at most as many as there are.

    Parameters
    ----------
    weights, people : (n,) of one side
    correlation : of two images of a person
    """
    share = weights / weights.sum()
    alone, together = (share**2).sum(), (sum_by_person(share, people) ** 2).sum()
    return float(1 / (alone + correlation * (together - alone)))


def most_frequent(classes: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Return the class that most images of each person have, (P,).

    Parameters
    ----------
    classes, people : (n,) numbers from 0
    """
    counts = np.zeros((int(people.max()) + 1, int(classes.max()) + 1))
    np.add.at(counts, (people, classes), 1)
    return counts.argmax(1)


def permuted_people(
    is_member: np.ndarray, kinds: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return which people are members where sides are drawn anew among people of the same kind.

    Parameters
    ----------
    is_member, kinds : (P,); each kind keeps its number of members
    """
    shuffled = rng.permutation(len(kinds))
    drawn = np.empty_like(is_member)
    drawn[shuffled[np.argsort(kinds[shuffled], kind="stable")]] = is_member[
        np.argsort(kinds, kind="stable")
    ]
    return drawn
