"""People drawn at random so that their labels are distributed as those of another set.

An attack compares forgotten with unseen images. Where their labels differ it measures the labels,
so whom to forget is drawn until no label's share differs by more than a tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .label_shares import ALIKE

DRAWS = 512
"""Random draws at first; the first within the tolerance is taken."""
STARTS = 16
"""Where none is, so many of the nearest are improved by exchanging people."""
PEOPLE = 2_000_000
"""People drawn from in all these: of a large set random draws are much alike, so few suffice."""
FEW = 64
"""Where fewer people leave or come than this, they are exchanged singly."""
PAIRS = 4096
"""Exchanges weighed at a time: all of them in a small set, a random sample in a large one."""


def draw_people(
    labels: np.ndarray,
    person_of_row: np.ndarray,
    wanted: np.ndarray,
    *,
    num: int,
    seed: int,
    tolerance: float = ALIKE,
) -> np.ndarray:
    """Draw `num` people whose images have nearly the wanted share of every label.

    The largest difference of a share is at most `tolerance`, or the smallest that the search
    meets where no set of so many people can have less. The result is a function of the arguments.

    Parameters
    ----------
    labels : (N,) classes, or (N, L) zeros and ones, of the images to draw from
    person_of_row : (N,) number of the person on each image, from 0
    wanted : (L,) share of each label
    num : how many people, at most all

    Returns
    -------
    (num,) numbers of people, ascending
    """
    counts = _counts(labels, person_of_row, len(wanted))
    num_images = np.bincount(person_of_row).astype(float)
    search = _Search(counts, num_images, wanted, np.random.default_rng(seed))
    drawn = []
    affordable = max(4, PEOPLE // len(num_images))
    for _ in range(min(DRAWS, affordable)):
        chosen = search.rng.permutation(len(num_images))[:num]
        difference = search.difference(chosen)
        if difference <= tolerance + 1e-9:
            return np.sort(chosen)
        drawn.append((difference, len(drawn), chosen))
    improved = []
    best_first = sorted(drawn, key=lambda candidate: candidate[:2])
    for _, number, chosen in best_first[: min(STARTS, affordable)]:
        better = search.improve(chosen, tolerance)
        improved.append((search.difference(better), number, better))
        if improved[-1][0] <= tolerance + 1e-9:
            break
    return np.sort(min(improved, key=lambda candidate: candidate[:2])[2])


def _counts(labels: np.ndarray, person_of_row: np.ndarray, num_labels: int) -> csr_matrix:
    """Return how many images of each person have each label, shape (people, labels)."""
    if labels.ndim == 2:
        rows, columns = np.nonzero(labels)
        people = person_of_row[rows]
    else:
        people, columns = person_of_row, labels
    shape = (int(person_of_row.max()) + 1, num_labels)
    # Equal entries are added up.
    return csr_matrix((np.ones(len(people)), (people, columns)), shape=shape)


class _Search:
    """A search for people whose labels have the wanted shares."""

    def __init__(
        self,
        counts: csr_matrix,
        num_images: np.ndarray,
        wanted: np.ndarray,
        rng: np.random.Generator,
    ):
        self.counts: Any = counts  # an index gives the rows of a matrix: scipy has no types for it
        self.num_images, self.wanted, self.rng = num_images, wanted, rng

    def difference(self, chosen: np.ndarray) -> float:
        """Return the largest difference of a share."""
        return float(np.abs(self._shares(chosen) - self.wanted).max())

    def _shares(self, chosen: np.ndarray) -> np.ndarray:
        return self._sums(chosen) / self.num_images[chosen].sum()

    def _sums(self, chosen: np.ndarray) -> np.ndarray:
        return np.asarray(self.counts[chosen].sum(axis=0)).ravel()

    def improve(self, chosen: np.ndarray, tolerance: float) -> np.ndarray:
        """Exchange people for others while that brings the shares nearer."""
        chosen = chosen.copy()
        others = np.setdiff1d(np.arange(len(self.num_images)), chosen)
        while len(others) and self.difference(chosen) > tolerance + 1e-9:
            leaves, comes = self._exchange(chosen, others)
            if not len(leaves):
                break
            chosen[leaves], others[comes] = others[comes], chosen[leaves]
        return chosen

    def _exchange(self, chosen: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of those who leave and of those who come; none where none helps.

        Of few people the best of all exchanges; of many as many random pairs at once as help, the
        most helpful first.
        """
        pairs = max(1, min(PAIRS, 2_000_000 // len(self.wanted)))
        most = min(len(chosen), len(others), pairs)
        if most < FEW:
            places = self._grid(len(chosen), len(others), pairs)
            most = 1
        else:
            places = np.stack([self.rng.permutation(len(p))[:most] for p in (chosen, others)])
        out, into = chosen[places[0]], others[places[1]]
        sums, total = self._sums(chosen), self.num_images[chosen].sum()
        deltas = self.counts[into].toarray() - self.counts[out].toarray()
        growth = self.num_images[into] - self.num_images[out]
        alone = self._distance((sums + deltas) / (total + growth)[:, None])
        order = np.argsort(alone, kind="stable")[:most]
        together = (sums + deltas[order].cumsum(0)) / (total + growth[order].cumsum())[:, None]
        after = self._distance(together)
        number = int(after.argmin()) + 1
        if after[number - 1] >= self._distance(sums / total) - 1e-12:
            number = 0
        return places[0, order[:number]], places[1, order[:number]]

    def _grid(self, num_chosen: int, num_others: int, pairs: int) -> np.ndarray:
        """Return the places (2, n) of all pairs, or of a random sample where they are many."""
        few, many = sorted((num_chosen, num_others))
        kept = self.rng.permutation(many)[: max(1, pairs // few)]
        places = np.stack([g.ravel() for g in np.meshgrid(np.arange(few), kept, indexing="ij")])
        return places if num_chosen == few else places[::-1]

    def _distance(self, shares: np.ndarray) -> np.ndarray:
        """Return the largest difference of a share; the mean one decides between equals."""
        differences = np.abs(shares - self.wanted)
        return differences.max(axis=-1) + 0.01 * differences.mean(axis=-1)
