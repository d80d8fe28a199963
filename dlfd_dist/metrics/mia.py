"""Population membership-inference attacks: forget samples (members) against unseen samples.

`membership_attack` is the one we report: guessing by correctness (the gap attack, Yeom et al.
2018) and thresholds on loss, logit-scaled confidence, entropy and modified entropy (Song and Mittal
2021), set on some people and judged on others. `mia_paper` is the attack behind published numbers.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from .people import (
    MIN_PEOPLE,
    effective_size,
    intraclass_correlation,
    mean_variance,
    num_equal_people,
    permuted_people,
    placements,
    t_interval,
)
from .sample_losses import SIGNALS
from .sides import Samples, Sides
from .thresholds import Judged, Signals

CHANCE = 0.5
NUM_REPEATS = 2
"""Times that people are dealt to folds."""

WEAK_AUC = 0.6
"""An attack that could only have seen a larger AUC than this is called weak."""

MIN_FOR_PAPER = 11
"""Samples from which 10 % make a test split with both sides."""


@dataclass(frozen=True)
class MIAResult:
    """The strongest attack, chosen where thresholds are set, and every attack beside it.

    accuracy : balanced share of samples that it puts on their side, by thresholds set on other
        people; chance is 0.5
    auc : area under the ROC of the logit-scaled confidence, members being the positives
    tpr_at_1pct, tpr_at_01pct : members found by the confidence when 1 % (0.1 %) of the unseen are
        accused falsely
    interval, auc_interval : 95 % over people
    floor : the attack is not better than chance, or people are too few; floor_reason says which
    detectable_auc : smallest AUC that these people tell from chance at 80 % power
    attack : the signal chosen most often
    attacks : name -> accuracy, interval and AUC of each signal's own attack
    within_labels : labels of both sides differ, and each class weighs the same on both
    num_member_people, num_nonmember_people : of the images that are compared
    p_value : share of permutations of people, one-sided, with an accuracy as high
    """

    accuracy: float
    auc: float
    tpr_at_1pct: float
    tpr_at_01pct: float
    interval: list[float]
    auc_interval: list[float]
    floor: bool
    floor_reason: str
    num_members: int
    num_nonmembers: int
    detectable_auc: float
    attack: str
    attacks: dict[str, dict[str, Any]]
    within_labels: bool
    num_member_people: int
    num_nonmember_people: int
    p_value: float

    @property
    def forgetting_score(self) -> float:
        return forgetting_score(self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def membership_attack(
    members: Samples,
    nonmembers: Samples,
    *,
    seed: int = 0,
    num_permutations: int = 199,
    num_repeats: int = NUM_REPEATS,
) -> MIAResult:
    """Attack members against nonmembers.

    Accuracies come from a cross-validation, whose folds share most of what they learn from: an
    interval holds chance exactly where permutations of people between the sides do not reject it.

    Parameters
    ----------
    members, nonmembers : neither empty; both with every one of SIGNALS
    seed : of folds and permutations
    """
    sides = Sides.of(members, nonmembers)
    values = np.stack([np.r_[members.signals[n], nonmembers.signals[n]] for n in SIGNALS])
    signals = sides.signals(values)
    judged = signals.judge(sides.is_member, seed, num_repeats)
    chance = _permuted(signals, sides, seed, num_repeats, num_permutations)
    intervals = _accuracy_intervals(judged, chance, sides)
    areas = [auc_over_people(row, sides) for row in values]
    area, area_interval = areas[SIGNALS.index("confidence")]
    accuracy, people = float(judged.accuracies[-1]), sides.num_people
    detectable = detectable_auc(*effective_sizes(values[SIGNALS.index("confidence")], sides))
    reason = floor_reason(people, intervals[-1], detectable)
    by_name = {
        name: {"accuracy": float(acc), "interval": interval, "auc": area}
        for name, acc, interval, (area, _) in zip(
            SIGNALS, judged.accuracies[:-1], intervals[:-1], areas, strict=True
        )
    }
    tpr_1, tpr_01 = (_tpr(values[SIGNALS.index("confidence")], sides, fpr) for fpr in (0.01, 0.001))
    return MIAResult(
        accuracy, area, tpr_1, tpr_01, intervals[-1], area_interval, bool(reason), reason,
        len(members), len(nonmembers), detectable, SIGNALS[int(judged.chosen.argmax())], by_name,
        sides.within_labels, people[0], people[1],
        float((1 + (chance[:, -1] >= accuracy).sum()) / (1 + len(chance))),
    )  # fmt: skip


@dataclass(frozen=True)
class QuickAttack:
    """The strongest attack's accuracy and the confidence's AUC, without permutations.

    accuracy_error : standard error over people, the folds' thresholds kept
    auc_error : standard error of the AUC over people in equal worlds
    """

    accuracy: float
    accuracy_error: float
    auc: float
    auc_error: float


def quick_attack(members: Samples, nonmembers: Samples, *, seed: int = 0) -> QuickAttack:
    """Return what a probe needs of the attack, with the people dealt to folds once."""
    sides = Sides.of(members, nonmembers)
    values = np.stack([np.r_[members.signals[n], nonmembers.signals[n]] for n in SIGNALS])
    judged = sides.signals(values).judge(sides.is_member, seed, 1)
    confidence = values[SIGNALS.index("confidence")]
    return QuickAttack(
        float(judged.accuracies[-1]),
        float(np.sqrt(sum(_accuracy_variances(judged, -1, sides)[0]))),
        auc_over_people(confidence, sides)[0],
        auc_standard_error(*effective_sizes(confidence, sides)),
    )


def effective_sizes(scores: np.ndarray, sides: Sides) -> tuple[float, float]:
    """Return how many independent members and nonmembers say as much as the images there are."""
    weights, compared = sides.weights, sides.compared
    if not weights.any():
        return 1.0, 1.0
    groups, counted = 2 * sides.classes + sides.is_member, weights > 0
    alike = intraclass_correlation(scores[counted], groups[counted], sides.people[counted])
    member, unseen = (effective_size(weights[rows], sides.people[rows], alike) for rows in compared)
    return member, unseen


def detectable_auc(
    num_members: float, num_nonmembers: float, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Return the smallest AUC above 0.5 that sets of these sizes tell from chance, 0.5..1.

    With this true AUC a two-sided test at `level` finds it with probability `power`. A figure at
    its floor on small sets says that nothing above this value was there, and of less it says
    nothing. Normal approximation: 0.5 has the variance of the Mann-Whitney statistic, the AUC that
    of Hanley and McNeil 1982 (eq. 1, for exponential scores).

    Parameters
    ----------
    num_members, num_nonmembers : independent samples, as `effective_sizes` counts them

    >>> round(detectable_auc(100, 100), 3)
    0.614
    """
    from scipy.optimize import root_scalar

    n, m = num_members, num_nonmembers
    from_chance = float(ndtri(1 - level / 2)) * np.sqrt((n + m + 1) / (12 * n * m))

    def short_of(area: float) -> float:
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        spread = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
        reach = from_chance + float(ndtri(power)) * np.sqrt(max(spread, 0.0) / (n * m))
        return float(area - CHANCE - reach)

    if short_of(1.0) <= 0:
        return 1.0
    return root_scalar(short_of, bracket=(CHANCE, 1.0), method="brentq").root


def low_power_reason(least: float, num_members: int, num_nonmembers: int) -> str:
    """Return what an attack could have missed where that is an AUC of WEAK_AUC; else nothing.

    Parameters
    ----------
    least : the detectable AUC
    num_members, num_nonmembers : people
    """
    if least <= WEAK_AUC:
        return ""
    missed = "even an AUC of 1" if least == 1 else f"an AUC below {least:.2f}"
    return (
        f"With {num_members} forgotten and {num_nonmembers} unseen people {missed} would be missed "
        "in more than a fifth of the cases."
    )


def forgetting_score(mia_accuracy: float) -> float:
    """Return |accuracy - 0.5|, 0..0.5; 0 is best."""
    return abs(mia_accuracy - CHANCE)


def mia_paper(member_losses: np.ndarray, nonmember_losses: np.ndarray) -> float | None:
    """Return the accuracy of the papers' attack: logistic regression on the raw loss.

    10 stratified shuffle splits (10 % test, random_state 0) of the sets as they are, not balanced:
    where one is larger, "always the larger" already scores its share.
    None where the sets are too small to be divided so.
    Source: `MIA` in evaluation/mia.py of Dasol-Choi/DLFD; Choi and Na 2023 (MUFAC).
    """
    if min(len(member_losses), len(nonmember_losses)) < 2:
        return None
    if len(member_losses) + len(nonmember_losses) < MIN_FOR_PAPER:
        return None
    losses = np.concatenate([nonmember_losses, member_losses]).reshape(-1, 1)
    members = np.r_[np.zeros(len(nonmember_losses)), np.ones(len(member_losses))]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    splits = StratifiedShuffleSplit(n_splits=10, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(
            LogisticRegression(), losses, members, cv=splits, scoring="accuracy"
        )
    return float(scores.mean())


def majority_share(num_members: int, num_nonmembers: int) -> float:
    """Return what "always the larger class" scores on sets of these sizes."""
    return max(num_members, num_nonmembers) / (num_members + num_nonmembers)


def auc(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """Return the chance that a random member scores above a random nonmember (ties count half).

    NaN where a score is NaN. An audit asks for it some 10,000 times.
    """
    ordered = np.sort(nonmembers)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    area = float(below.sum() / (2 * len(members) * len(nonmembers)))
    return float("nan") if np.isnan(members).any() or np.isnan(ordered[-1]) else area


def auc_standard_error(num_members: float, num_nonmembers: float) -> float:
    """Return the standard error of the AUC when members and nonmembers are alike.

    It takes samples as independent: give it the sizes of `effective_sizes`.
    Source: Mann and Whitney 1947, the variance of U.
    """
    n, m = num_members, num_nonmembers
    return float(np.sqrt((n + m + 1) / (12 * n * m)))


def tpr_at_fpr(
    members: np.ndarray, nonmembers: np.ndarray, fpr: float, weights: np.ndarray | None = None
) -> float:
    """Return the largest true-positive rate at a false-positive rate of at most `fpr`.

    weights : of members, then nonmembers; None for equal ones
    """
    from sklearn.metrics import roc_curve

    truth = np.r_[np.ones(len(members)), np.zeros(len(nonmembers))]
    false_rate, true_rate, _ = roc_curve(
        truth, np.r_[members, nonmembers], drop_intermediate=False, sample_weight=weights
    )
    return float(true_rate[false_rate <= fpr].max())


def floor_reason(people: tuple[int, int], interval: list[float], detectable: float) -> str:
    """Return why the attack's accuracy says little, or an empty string.

    Parameters
    ----------
    people : members and unseen
    """
    if min(people) < MIN_PEOPLE:
        return few_people(people)
    if interval[0] <= CHANCE:
        return (
            f"The attack is no better than chance (95 % interval {interval[0]:.3f} to "
            f"{interval[1]:.3f} over {people[0]} forgotten and {people[1]} unseen people; an AUC "
            f"below {detectable:.2f} would often go unseen)."
        )
    return ""


def few_people(people: tuple[int, int], untold: str = "the attack cannot tell") -> str:
    """Return that too few people are compared, and what they leave open."""
    return (
        f"{people[0]} forgotten and {people[1]} unseen people can be compared, those with a label "
        f"that the other side has too: with fewer than {MIN_PEOPLE} on a side {untold}."
    )


def _permuted(
    signals: Signals, sides: Sides, seed: int, num_repeats: int, num_permutations: int
) -> np.ndarray:
    """Return the accuracies (B, S + 1) of attacks on sides drawn anew among the people."""
    rng = np.random.default_rng([seed, 1])
    is_member, kinds = sides.member_of_person, sides.kind_of_person
    accuracies = []
    for k in range(num_permutations):
        drawn = permuted_people(is_member, kinds, rng)[sides.people]
        accuracies.append(signals.judge(drawn, seed + k + 1, num_repeats).accuracies)
    return np.array(accuracies)


def _accuracy_intervals(judged: Judged, chance: np.ndarray, sides: Sides) -> list[list[float]]:
    """Return the intervals of all attacks.

    Permutations give the end towards chance, and with it an exact test of equal worlds; the other
    end is theirs or that over people, whichever reaches further.
    """
    low, high = CHANCE - np.quantile(chance, [0.975, 0.025], axis=0, method="weibull")
    intervals = []
    for s, accuracy in enumerate(judged.accuracies):
        ends = [accuracy + low[s], accuracy + high[s]]
        over_people = t_interval(accuracy, *_accuracy_variances(judged, s, sides))
        if accuracy < CHANCE:
            ends[0] = min(ends[0], over_people[0])
        else:
            ends[1] = max(ends[1], over_people[1])
        intervals.append([float(max(0.0, ends[0])), float(min(1.0, ends[1]))])
    return intervals


def _accuracy_variances(judged: Judged, s: int, sides: Sides) -> tuple[list[float], list[float]]:
    """Return what each side adds to the variance of an accuracy, and people of equal weight."""
    variances, people = [], []
    for rows in sides.compared:
        weights, who = judged.weights[rows], sides.people[rows]
        # Half of the accuracy is of either side.
        variances.append(mean_variance(judged.right[s][rows], weights, who) / 4)
        people.append(num_equal_people(weights, who) if len(who) else 1.0)
    return variances, people


def auc_over_people(scores: np.ndarray, sides: Sides) -> tuple[float, list[float]]:
    """Return the AUC and its interval over people; sides that share no class give 0.5."""
    weights, compared = sides.weights, sides.compared
    if not weights.any():
        return CHANCE, [0.0, 1.0]
    weight = [weights[rows] for rows in compared]
    places = placements(scores[compared[0]], scores[compared[1]], weight)
    value = round(float(places[0] @ weight[0]), 12)
    who = [sides.people[rows] for rows in compared]
    variances = [
        mean_variance(place, own, persons)
        for place, own, persons in zip(places, weight, who, strict=True)
    ]
    people = [num_equal_people(w, own) for w, own in zip(weight, who, strict=True)]
    return value, t_interval(value, variances, people)


def _tpr(scores: np.ndarray, sides: Sides, fpr: float) -> float:
    weights = sides.weights
    if not weights.any():
        return fpr
    return tpr_at_fpr(scores[sides.is_member], scores[~sides.is_member], fpr, weights)
