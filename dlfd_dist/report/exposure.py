"""Per-person exposure before and after, for the page: numbers instead of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.exposure import exposure_by_person
from ..plain import band
from .records import ORIGINAL, RunRecord, of_label

NEEDED = ("ids", "person", "confidence")
NUM_BINS = 10
MAX_SHOWN = 12


@dataclass(frozen=True)
class PersonExposure:
    """One forgotten person; the pseudonym is a number in the order of exposure before."""

    pseudonym: str
    images: str
    """how many, as a band: exactly, a person could be known by it"""
    before: float
    after: float


@dataclass(frozen=True)
class Exposure:
    """All forgotten people, the most exposed before first, and how many lie in each bin."""

    people: list[PersonExposure]
    before: list[int]
    after: list[int]
    """people per tenth of the exposure, from 0 to 1"""

    @property
    def shown(self) -> list[PersonExposure]:
        return self.people[:MAX_SHOWN]

    @property
    def peak(self) -> int:
        return max(*self.before, *self.after, 1)


def exposure_of(records: Sequence[RunRecord], unlearned: RunRecord) -> Exposure | None:
    """Return the exposure of every person in Original and in the unlearned model.

    None where a run does not know whose images they are, or Original was measured on others.
    """
    original = next(
        (r for r in of_label(records, ORIGINAL) if r.train_seed == unlearned.train_seed), None
    )
    if original is None:
        return None
    sides = []
    for record in (original, unlearned):
        if record.tensor("forget.person") is None or record.tensor("test.confidence") is None:
            return None
        ids, persons, confidence = (record.require(f"forget.{n}") for n in NEEDED)
        shares = exposure_by_person(confidence, persons, record.require("test.confidence"))
        sides.append((ids, shares, persons))
    if not np.array_equal(sides[0][0], sides[1][0]):
        return None
    before, after, persons = sides[0][1], sides[1][1], sides[1][2]
    order = sorted(before, key=lambda person: (-before[person], -after[person]))
    people = [
        PersonExposure(f"Person {n}", band(int((persons == p).sum())), before[p], after[p])
        for n, p in enumerate(order, start=1)
    ]
    return Exposure(people, _bins(before.values()), _bins(after.values()))


def _bins(values: Iterable[float]) -> list[int]:
    return np.histogram(list(values), bins=NUM_BINS, range=(0, 1))[0].tolist()
