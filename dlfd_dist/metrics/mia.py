"""Population membership-inference attacks: forget samples (members) against unseen samples.

`mia_paper` is the attack behind the published numbers; `balanced_mia` is the one we report.
scikit-learn takes as long to load as torch, so it is imported by what calls it, not by every rank.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import root_scalar
from scipy.stats import norm, rankdata

CHANCE = 0.5
NUM_FOLDS = 5
NUM_DRAWS = 5
MIN_PER_SIDE = 10
"""Fewer samples than this on a side and the figure means nothing."""

WEAK_AUC = 0.6
"""An attack that could only have seen a larger AUC than this is called weak."""

MIN_FOR_PAPER = 11
"""Samples from which 10 % make a test split with both sides."""


@dataclass(frozen=True)
class MIAResult:
    """A membership attack.

    accuracy : share of a balanced sample the attack gets right, cross-validated; chance is 0.5
    auc : area under the ROC of the confidence, members being the positives
    tpr_at_1pct, tpr_at_01pct : members found when 1 % (0.1 %) of the unseen are accused falsely
    interval, auc_interval : 95 % bootstrap intervals over samples
    floor : the attack is not better than chance, or the sets are too small; floor_reason says which
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
    """smallest AUC that these sets tell from chance at 80 % power"""

    @property
    def forgetting_score(self) -> float:
        return forgetting_score(self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def detectable_auc(
    num_members: int, num_nonmembers: int, *, power: float = 0.8, level: float = 0.05
) -> float:
    """Return the smallest AUC above 0.5 that sets of these sizes tell from chance, 0.5..1.

    With this true AUC a two-sided test at `level` finds it with probability `power`. A figure at
    its floor on small sets says that nothing above this value was there, and of less it says
    nothing. Normal approximation: 0.5 has the variance of the Mann-Whitney statistic, the AUC that
    of Hanley and McNeil 1982 (eq. 1, for exponential scores).

    >>> round(detectable_auc(100, 100), 3)
    0.614
    """
    n, m = num_members, num_nonmembers
    from_chance = float(norm.ppf(1 - level / 2)) * np.sqrt((n + m + 1) / (12 * n * m))

    def short_of(area: float) -> float:
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        spread = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
        reach = from_chance + float(norm.ppf(power)) * np.sqrt(max(spread, 0.0) / (n * m))
        return float(area - CHANCE - reach)

    if short_of(1.0) <= 0:
        return 1.0
    return root_scalar(short_of, bracket=(CHANCE, 1.0), method="brentq").root


def low_power_reason(least: float, num_members: int, num_nonmembers: int) -> str:
    """Return what an attack could have missed where that is an AUC of WEAK_AUC; else nothing.

    least : the detectable AUC
    """
    if least <= WEAK_AUC:
        return ""
    return (
        f"With {num_members} forgotten and {num_nonmembers} unseen images an AUC "
        f"below {least:.2f} would be missed in more than a fifth of the cases."
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


def attack_accuracy(
    members: np.ndarray, nonmembers: np.ndarray, *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> float:
    """Return the balanced attack's cross-validated accuracy alone (what a probe needs)."""
    right = _balanced_correctness(members, nonmembers, seed, num_draws)
    return float(np.mean([side[~np.isnan(side)].mean() for side in right]))


def balanced_mia(
    members: np.ndarray, nonmembers: np.ndarray, *, seed: int = 0, num_bootstrap: int = 1000
) -> MIAResult:
    """Attack with equally many members and nonmembers, drawn several times.

    Parameters
    ----------
    members, nonmembers : (n,), (m,) logit-scaled confidences of forget and unseen samples
    seed : of the balanced draws, folds and bootstrap

    Logistic regression on the confidence, 5-fold cross-validated on each of 5 balanced draws; a
    sample counts with its mean correctness over the draws. The bootstrap resamples members and
    nonmembers separately.
    """
    right_in, right_out = _balanced_correctness(members, nonmembers, seed, NUM_DRAWS)
    right_in, right_out = right_in[~np.isnan(right_in)], right_out[~np.isnan(right_out)]
    accuracy = float((right_in.mean() + right_out.mean()) / 2)
    tpr_1, tpr_01 = (tpr_at_fpr(members, nonmembers, fpr) for fpr in (0.01, 0.001))
    rng = np.random.default_rng([seed, 1])
    accuracies, aucs = np.empty(num_bootstrap), np.empty(num_bootstrap)
    for k in range(num_bootstrap):
        draw = [side[rng.integers(0, len(side), len(side))] for side in (right_in, right_out)]
        accuracies[k] = (draw[0].mean() + draw[1].mean()) / 2
        aucs[k] = auc(*(s[rng.integers(0, len(s), len(s))] for s in (members, nonmembers)))
    interval, auc_interval = _interval(accuracies), _interval(aucs)
    reason = floor_reason(len(members), len(nonmembers), interval)
    return MIAResult(
        accuracy, auc(members, nonmembers), tpr_1, tpr_01, interval, auc_interval,
        bool(reason), reason, len(members), len(nonmembers),
        detectable_auc(len(members), len(nonmembers)),
    )  # fmt: skip


def auc(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """Return the chance that a random member scores above a random nonmember (ties count half)."""
    n, m = len(members), len(nonmembers)
    ranks = rankdata(np.r_[members, nonmembers])
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_standard_error(num_members: int, num_nonmembers: int) -> float:
    """Return the standard error of the AUC when members and nonmembers are alike.

    It takes samples as independent; with several images of a person the true error is larger.
    Source: Mann and Whitney 1947, the variance of U.
    """
    n, m = num_members, num_nonmembers
    return float(np.sqrt((n + m + 1) / (12 * n * m)))


def tpr_at_fpr(members: np.ndarray, nonmembers: np.ndarray, fpr: float) -> float:
    """Return the largest true-positive rate at a false-positive rate of at most `fpr`."""
    from sklearn.metrics import roc_curve

    truth = np.r_[np.ones(len(members)), np.zeros(len(nonmembers))]
    false_rate, true_rate, _ = roc_curve(truth, np.r_[members, nonmembers], drop_intermediate=False)
    return float(true_rate[false_rate <= fpr].max())


def floor_reason(num_members: int, num_nonmembers: int, interval: list[float]) -> str:
    """Return why the attack's accuracy says little, or an empty string."""
    smaller = min(num_members, num_nonmembers)
    if smaller < MIN_PER_SIDE:
        return f"Only {smaller} samples on one side: too few for the attack to mean anything."
    if interval[0] <= CHANCE:
        return (
            f"The attack is no better than chance (95 % interval {interval[0]:.3f} to "
            f"{interval[1]:.3f} with {smaller} samples a side; an AUC below "
            f"{detectable_auc(num_members, num_nonmembers):.2f} would often go unseen)."
        )
    return ""


def _interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.quantile(values, [0.025, 0.975])]


def _balanced_correctness(
    members: np.ndarray, nonmembers: np.ndarray, seed: int, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean correctness of each member and nonmember; NaN for one never drawn."""
    rng = np.random.default_rng([seed, 0])
    size = min(len(members), len(nonmembers))
    sums = [np.zeros(len(members)), np.zeros(len(nonmembers))]
    counts = [np.zeros(len(members)), np.zeros(len(nonmembers))]
    truth = np.r_[np.ones(size), np.zeros(size)]
    for _ in range(num_draws):
        drawn = [rng.permutation(len(side))[:size] for side in (members, nonmembers)]
        scores = np.r_[members[drawn[0]], nonmembers[drawn[1]]]
        right = _cross_validated(scores, truth, int(rng.integers(2**31)))
        for side, chosen in enumerate(drawn):
            sums[side][chosen] += right[side * size : (side + 1) * size]
            counts[side][chosen] += 1
    with np.errstate(invalid="ignore"):
        return sums[0] / counts[0], sums[1] / counts[1]


def _cross_validated(scores: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Return for each score whether a classifier that never saw it tells its side."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    folds = min(NUM_FOLDS, len(truth) // 2)
    if folds < 2:
        return np.full(len(truth), CHANCE)
    right = np.empty(len(truth))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(scores, truth):
        centre, scale = scores[train].mean(), scores[train].std() or 1.0
        scaled = ((scores - centre) / scale).reshape(-1, 1)
        attack = LogisticRegression().fit(scaled[train], truth[train])
        right[test] = attack.predict(scaled[test]) == truth[test]
    return right
