"""Thresholds on what an attack sees, set on some people and judged on others.

The advantage of a threshold is the difference of two distribution functions, of unseen and of
forgotten samples. The empirical one is smoothed before its largest value is taken, for the place of
the maximum of a rough curve is itself a draw. The width of the smoothing is chosen inside the
training folds, as the signal is. Both sides weigh the same throughout, within each class where
classes are given.
Legend: S signals, W widths, N samples, F folds, M trainings, G grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from .people import most_frequent

NUM_FOLDS = 5
GRID = 256
WIDTHS = (0.5, 1.5)
"""Half the base of the triangular kernel in balanced ranks, at one person a side; it narrows with
the cube root of people. The narrow kernel finds a step, the wide one the top of a flat curve."""


@dataclass(frozen=True)
class Judged:
    """What thresholds say of samples of people they were not set on, the mean over repeats.

    right : (S + 1, N) share of the repeats in which a sample is put on its side; the last row is
        that of the attack chosen inside the training folds, the others of one signal each
    weights : (N,) of a sample in the accuracy; each side has a half
    chosen : (S,) share of the folds in which a signal was chosen
    """

    right: np.ndarray
    weights: np.ndarray
    chosen: np.ndarray

    @property
    def accuracies(self) -> np.ndarray:
        """(S + 1,) balanced accuracy; 0.5 where no sample could be judged."""
        if not self.weights.any():
            return np.full(len(self.right), 0.5)
        # Sums of shares round: 1 and 0.5 are to be just that.
        return np.round(self.right @ self.weights, 12)


class Signals:
    """Signals of samples in order, once for all sides, folds and trainings.

    Parameters
    ----------
    values : (S, N)
    people : (N,) number of the person of each sample, from 0
    classes : (N,) number of the class within which sides are balanced, from 0
    """

    def __init__(self, values: np.ndarray, people: np.ndarray, classes: np.ndarray):
        self.people, self.num_people = people, int(people.max()) + 1
        self.one_hot = (classes[:, None] == np.arange(classes.max() + 1)).astype(np.float64)
        self.kind_of_person = most_frequent(classes, people)
        self.values, self.of_signal = _distinct(values)
        self.order = np.argsort(self.values, axis=1)
        self.ordered = ordered = np.take_along_axis(self.values, self.order, 1)
        is_end = np.ones(ordered.shape, bool)
        is_end[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
        # A threshold takes all equal values or none: each has the place of the last of them.
        places = np.where(is_end, np.arange(ordered.shape[1]), ordered.shape[1])
        self.last = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
        self.has_ties = ~is_end.all(1)

    def judge(self, is_member: np.ndarray, seed: int, num_repeats: int) -> Judged:
        """Return what cross-validated thresholds say; each repeat deals people to other folds.

        Parameters
        ----------
        is_member : (N,) the same for all samples of a person
        """
        rng = np.random.default_rng([seed, 0])
        parts = [self._judge_once(is_member, rng) for _ in range(num_repeats)]
        right, weights, chosen = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
        by_signal = np.zeros(len(self.of_signal))
        by_signal[np.unique(self.of_signal, return_index=True)[1]] = chosen
        return Judged(np.r_[right[self.of_signal], right[-1:]], weights, by_signal)

    def _judge_once(
        self, is_member: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        num_signals, num = self.order.shape
        folds, num_folds = self._folds(is_member, rng)
        in_fold = folds == np.arange(num_folds)[:, None]
        weights, sizes = self._balanced(in_fold, is_member)
        # Leaving out fold k sets the thresholds that k is judged by; leaving out k and j as well
        # sets those by which signals are compared for k.
        left_out = [(k, k) for k in range(num_folds)] + list(combinations(range(num_folds), 2))
        kept = np.array([~(in_fold[k] | in_fold[j]) for k, j in left_out])
        thresholds, directions = self._thresholds(self._balanced(kept, is_member)[0], is_member)
        above = self.values[:, None] > thresholds[..., None]
        # Each row of the sides' weights sums to zero, so "not above" adds the same as "above".
        truth = np.where(is_member, 1.0, -1.0)
        signed = (weights * truth).T.astype(np.float32)
        gains = 2 * directions[..., None] * (above.astype(np.float32) @ signed)
        inner = np.zeros((num_folds, num_signals, len(WIDTHS)))
        for m, (k, j) in enumerate(left_out[num_folds:], start=num_folds):
            inner[k] += sizes[j] * gains[m, ..., j]
            inner[j] += sizes[k] * gains[m, ..., k]
        width, best = _first_largest(inner), _first_largest(inner.max(2))
        votes = np.where(above[:num_folds], 1, -1) * directions[:num_folds, ..., None]
        votes = np.take_along_axis(votes, width[:, :, None, None], 2)[folds, :, 0, np.arange(num)].T
        votes = np.r_[votes, votes[best[folds], np.arange(num)][None]]
        total = sizes.sum()
        share = (sizes[:, None] * weights).sum(0) / (2 * total) if total else np.zeros(num)
        return (1 + votes * truth) / 2, share, np.bincount(best, minlength=num_signals) / num_folds

    def _folds(self, is_member: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Return the fold of each sample: people of each side and class dealt out in turn."""
        member = np.zeros(self.num_people, bool)
        member[self.people] = is_member
        order = rng.permutation(self.num_people)
        order = order[np.lexsort((self.kind_of_person[order], member[order]))]
        num_folds = max(2, min(NUM_FOLDS, int(member.sum()), int((~member).sum())))
        of_person = np.empty(self.num_people, np.int64)
        for side in (order[member[order]], order[~member[order]]):
            of_person[side] = np.arange(len(side)) % num_folds
        return of_person[self.people], num_folds

    def _balanced(self, rows: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (M, N) of samples in rows (M, N), and how much each row can say, (M,).

        In every class members and unseen weigh the same, together as its harmonic size, which has
        the smallest variance; each side of a row sums to one.
        """
        counts = np.stack([(rows & side) @ self.one_hot for side in (is_member, ~is_member)])
        size = counts.prod(0) / np.maximum(counts.sum(0), 1)
        total = size.sum(1)
        share = size / np.maximum(total, 1e-300)[:, None]
        each = share / np.maximum(counts, 1)
        weights = np.where(is_member, each[0] @ self.one_hot.T, each[1] @ self.one_hot.T)
        return rows * weights, total

    def _thresholds(
        self, weights: np.ndarray, is_member: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best threshold of each training, signal and width, and what lies above it.

        Parameters
        ----------
        weights : (M, N) of _balanced

        Returns
        -------
        thresholds (M, S, W), half-way between two values that were learnt from; samples above
        count as `directions` (M, S, W): 1 members, -1 unseen, 0 neither
        """
        num_rows, num_signals = len(weights), len(self.order)
        ordered = weights.astype(np.float32)[:, self.order]
        # How much of both sides lies at or below a sample, in steps of the grid.
        level = np.cumsum(ordered, axis=2, dtype=np.float32)
        for s in np.flatnonzero(self.has_ties):
            level[:, s] = level[:, s, self.last[s]]
        level *= GRID / 2
        level -= 1e-3
        bins = np.minimum(level.astype(np.int32), GRID - 1)
        rows = np.arange(num_rows * num_signals, dtype=np.int32).reshape(num_rows, num_signals, 1)
        ordered *= np.where(is_member[self.order], np.float32(-1), np.float32(1))
        steps = np.bincount((bins + rows * GRID).ravel(), ordered.ravel(), rows.size * GRID)
        curve = np.cumsum(steps.reshape(-1, GRID), axis=1)
        num_people = min(len(np.unique(self.people[side])) for side in (is_member, ~is_member))
        shape = (num_rows, num_signals, len(WIDTHS), GRID)
        smooth = (curve @ _kernels(num_people, WIDTHS)).reshape(shape)
        place = np.abs(smooth).argmax(3, keepdims=True)
        heights = np.take_along_axis(smooth, place, 3)[..., 0]
        below = (bins[:, :, None] <= place).sum(3) - 1
        thresholds = [self._half_way(level, below[:, :, w]) for w in range(len(WIDTHS))]
        return np.stack(thresholds, 2), np.where(np.abs(heights) > 1e-5, np.sign(heights), 0)

    def _half_way(self, level: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Return what lies between the last value below that was learnt from and the first above.

        Parameters
        ----------
        level : (M, S, N) grows where a sample was learnt from
        below : (M, S) place of the last sample before the next of those
        """
        signal = np.arange(len(self.ordered))
        reached = np.take_along_axis(level, np.maximum(below, 0)[:, :, None], 2)
        lower = self.ordered[signal, (level < reached).sum(2)]
        above = np.minimum(below + 1, level.shape[2] - 1)
        upper = np.where(below + 1 < level.shape[2], self.ordered[signal, above], np.inf)
        return np.where(below < 0, -np.inf, (lower + upper) / 2)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the signals that order samples differently, and which of them each signal is.

    Of two classes all but the entropy are functions of one another, and need one sorting.
    """
    ranks = [np.unique(row, return_inverse=True)[1] for row in values]
    of_signal, kept = np.empty(len(values), np.int64), []
    for s, row in enumerate(ranks):
        same = [k for k, t in enumerate(kept) if np.array_equal(ranks[t], row)]
        of_signal[s] = same[0] if same else len(kept)
        kept += [] if same else [s]
    return values[kept], of_signal


def _first_largest(gains: np.ndarray) -> np.ndarray:
    """Return the place of the largest along the last axis: of those equal within rounding, the
    first."""
    return (gains >= gains.max(-1, keepdims=True) - 1e-6).argmax(-1)


@lru_cache(maxsize=64)
def _kernels(num_people: int, widths: tuple[float, ...]) -> np.ndarray:
    """Return the (G, W * G) triangular smoothings; outside of the grid a curve is zero."""
    base = np.maximum(1.0, np.array(widths) * num_people ** (-1 / 3) * GRID)[:, None]
    apart = np.abs(np.arange(GRID)[:, None, None] - np.arange(GRID))
    return (np.maximum(0, 1 - apart / base) / base).reshape(GRID, -1)
