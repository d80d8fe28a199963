"""The steps of an unlearning run: which samples each sees, over all phases of the method."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from ..config import MethodConfig
from ..data.splits import Splits
from ..methods import Phase, UnlearningMethod
from ..runtime.sampler import EpochSampler
from ..runtime.seeding import purpose_key, shuffled

NOBODY = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Turn:
    """One step: its number over all phases, its epoch, and the ids of its global batches."""

    index: int
    epoch: int
    phase: Phase
    retain: np.ndarray
    forget: np.ndarray
    reference: np.ndarray
    """of the people who are matched to: ids in their own set"""
    ends_phase: bool


class Course:
    """The steps of all phases, a function of the seed and never of the number of ranks.

    Parameters
    ----------
    shuffle : whether the order of an epoch is shuffled
    equal_batches : pass over the steps whose retain and forget batch differ in size
    reference : ids of the people who are matched to, where a phase wants them
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        splits: Splits,
        cfg: MethodConfig,
        seed: int,
        *,
        shuffle: bool = True,
        equal_batches: bool = False,
        reference: np.ndarray = NOBODY,
    ):
        self.splits = splits
        self.batch_size = cfg.global_batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.equal_batches = equal_batches
        self.reference = reference
        self.parts = [(phase, self._samplers(number, phase)) for number, phase in enumerate(phases)]
        self.lengths = [_length(phase, main.steps_per_epoch) for phase, (main, _) in self.parts]
        self.num_steps = min(sum(self.lengths), cfg.max_steps or 10**12)
        if cfg.steps is not None and any(phase.updates for phase in phases):
            pairs = zip(phases, self.lengths, strict=True)
            others = sum(length for phase, length in pairs if not phase.updates)
            self.num_steps = min(sum(self.lengths), others + cfg.steps)
            self._end_on_weights_to_keep()

    def _end_on_weights_to_keep(self) -> None:
        """Where the steps break off in a phase whose weights nobody keeps, prolong the one before.

        A method that forgets and repairs in turn would be delivered unrepaired.
        """
        ends = list(accumulate(self.lengths))
        last = bisect.bisect_left(ends, self.num_steps)
        selectable = [n for n, (p, _) in enumerate(self.parts[:last]) if p.selectable and p.updates]
        breaks_off = self.num_steps < sum(self.lengths)
        if not breaks_off or self.parts[last][0].selectable or not selectable:
            return
        number = selectable[-1]
        phase, samplers = self.parts[number]
        steps = self.num_steps - ends[number] + self.lengths[number]
        self.parts = [*self.parts[:number], (replace(phase, steps=steps), samplers)]
        self.lengths = [*self.lengths[:number], steps]

    @property
    def passes(self) -> dict[str, float]:
        """Return how often each phase passes over its set, by name; of retain with forget, retain.

        A step that is passed over (equal_batches) counts.
        """
        passes: dict[str, float] = {}
        left = self.num_steps
        for (phase, (main, _)), length in zip(self.parts, self.lengths, strict=True):
            steps = min(length, left)
            left -= steps
            passes[phase.name] = passes.get(phase.name, 0) + steps / main.steps_per_epoch
        return passes

    @property
    def optimizers(self) -> dict[str, float | None]:
        """Return the weight decay of each optimizer that phases have for themselves, by name."""
        own = (phase for phase, _ in self.parts if phase.optimizer)
        return {phase.optimizer: phase.weight_decay for phase in own}

    def turns(self, first: int) -> Iterator[Turn]:
        """Yield the steps from `first` on."""
        start = 0
        for (phase, samplers), length in zip(self.parts, self.lengths, strict=True):
            stop = min(start + length, self.num_steps)
            if first < stop:
                yield from self._turns(phase, samplers, start, max(first, start), stop)
            start += length

    def _turns(
        self,
        phase: Phase,
        samplers: tuple[EpochSampler, EpochSampler | None],
        start: int,
        first: int,
        stop: int,
    ) -> Iterator[Turn]:
        main, paired = samplers
        end = start + _length(phase, main.steps_per_epoch)
        steps = main.steps(first - start, stop - start)
        if paired is None:
            for step in steps:
                is_forget = np.isin(step.ids, self.splits.forget)
                yield Turn(
                    start + step.index, phase.first_epoch + step.epoch, phase, step.ids[~is_forget],
                    step.ids[is_forget], NOBODY, start + step.index + 1 == end,
                )  # fmt: skip
            return
        for step, other in zip(steps, paired.steps(first - start, stop - start), strict=True):
            if self.equal_batches and len(step.ids) != len(other.ids):
                continue
            epoch = phase.first_epoch + step.epoch
            ends = start + step.index + 1 == end
            met = self._reference(phase, step.index)
            pair = (step.ids, other.ids) if phase.over == "retain" else (other.ids, step.ids)
            yield Turn(start + step.index, epoch, phase, *pair, met, ends)

    def _reference(self, phase: Phase, index: int) -> np.ndarray:
        if not (phase.reference_batch and len(self.reference)):
            return NOBODY
        size = even_size(len(self.reference), phase.reference_batch)
        return self._sampler(self.reference, "reference order", 0, size).step(index).ids

    def _samplers(self, number: int, phase: Phase) -> tuple[EpochSampler, EpochSampler | None]:
        """Return the sampler whose epochs count, and that of the batches that ride along."""
        retain, forget = self._retain(phase.retain_fraction), self.splits.forget
        if phase.over == "mixed":
            return self._sampler(np.union1d(retain, forget), "mixed order", number), None
        of_retain = self._sampler(retain, "retain order", number)
        of_forget = self._sampler(
            forget, "forget order", number,
            phase.forget_batch and even_size(len(forget), phase.forget_batch),
        )  # fmt: skip
        if phase.over == "retain":
            return of_retain, of_forget
        return of_forget, of_retain if phase.retain_rides else None

    def _sampler(
        self, ids: np.ndarray, purpose: str, number: int, batch_size: int | None = None
    ) -> EpochSampler:
        # Every phase has an order of its own; that of the first bears the plain name.
        return EpochSampler(
            ids, batch_size=batch_size or self.batch_size, seed=self.seed,
            purpose=f"{purpose} {number}" if number else purpose, shuffle=self.shuffle,
        )  # fmt: skip

    def _retain(self, fraction: float | None) -> np.ndarray:
        retain = self.splits.retain
        if fraction == 1:
            return retain
        count = _num_retain(self.splits, fraction)
        return np.sort(shuffled(retain, self.seed, purpose_key("retain fraction"))[:count])


def fitted(cfg: MethodConfig, build: type[UnlearningMethod], splits: Splits) -> MethodConfig:
    """Return settings with the epochs that method.steps takes, so that schedules run over them.

    They stay as they are without method.steps, of a method without optimiser steps, and of one
    whose phases share out the steps themselves.
    """
    phases = build.phases(cfg)
    is_shared = any(phase.steps is not None for phase in phases)
    if cfg.steps is None or is_shared or not any(phase.updates for phase in phases):
        return cfg

    def num_updates(epochs: int) -> int:
        phases = build.phases(replace(cfg, epochs=epochs))
        return sum(p.epochs * _epoch_steps(p, splits, cfg) for p in phases if p.updates)

    # An epoch has at least one step.
    epochs = bisect.bisect_left(range(1, cfg.steps + 1), cfg.steps, key=num_updates) + 1
    return replace(cfg, epochs=epochs)


def _length(phase: Phase, steps_per_epoch: int) -> int:
    return phase.epochs * steps_per_epoch if phase.steps is None else phase.steps


def _num_retain(splits: Splits, fraction: float | None) -> int:
    """Return the size of a share of the retain set; of None as many images as the forget set."""
    if fraction is None:
        return len(splits.forget)
    return max(1, round(fraction * len(splits.retain)))


def _epoch_steps(phase: Phase, splits: Splits, cfg: MethodConfig) -> int:
    retain, forget = _num_retain(splits, phase.retain_fraction), len(splits.forget)
    count = {"retain": retain, "forget": forget, "mixed": retain + forget}[phase.over]
    size = cfg.global_batch_size
    if phase.over == "forget" and phase.forget_batch:
        size = even_size(forget, phase.forget_batch)
    return -(-count // size)


def even_size(count: int, most: int) -> int:
    """Return the size of batches nearly equal, none above `most`: a remnant of a few says little.

    >>> even_size(130, 64)
    44
    """
    return -(-count // max(1, -(-count // most)))
