"""Which samples a step sees: the same global batches for every world size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .seeding import purpose_key, shuffled


@dataclass(frozen=True)
class Step:
    """One step of an epoch: the sample ids of its global batch, and where it stands."""

    index: int
    """step number over all epochs, from 0"""
    epoch: int
    ids: np.ndarray


class EpochSampler:
    """Global batches of shuffled epochs; the last batch of an epoch may be smaller.

    Parameters
    ----------
    ids : sample ids of the set
    seed, purpose : the order is a function of (seed, purpose, epoch, sample id)
    shuffle : off, the ids keep their order in every epoch
    """

    def __init__(
        self, ids: np.ndarray, *, batch_size: int, seed: int, purpose: str, shuffle: bool = True
    ):
        self.ids = ids
        self.batch_size = batch_size
        self.key = (seed, purpose_key(purpose))
        self.shuffle = shuffle

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        return shuffled(self.ids, *self.key, epoch) if self.shuffle else self.ids

    def step(self, index: int) -> Step:
        """Return one step by its number over all epochs."""
        epoch, position = divmod(index, self.steps_per_epoch)
        start = position * self.batch_size
        return Step(index, epoch, self.order(epoch)[start : start + self.batch_size])

    def steps(self, first: int, stop: int) -> Iterator[Step]:
        """Yield the steps first..stop-1, shuffling each epoch once."""
        order, shuffled_epoch = self.ids, -1
        for index in range(first, stop):
            epoch, position = divmod(index, self.steps_per_epoch)
            if epoch != shuffled_epoch:
                order, shuffled_epoch = self.order(epoch), epoch
            start = position * self.batch_size
            yield Step(index, epoch, order[start : start + self.batch_size])
