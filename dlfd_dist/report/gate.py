"""Whether a table can rank anything: does the attack tell Original from Retrained at all?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ..metrics import Estimate, attack_error
from ..metrics.people import MIN_PEOPLE
from ..plain import counted
from .intervals import over_seeds
from .records import ORIGINAL, RETRAINED, RunRecord, of_label

MIN_SEEDS = 5
"""From so many train seeds the error is that over seeds, below it that over people."""
CLOSED = "Nothing can be ranked here"


@dataclass(frozen=True)
class Gate:
    """Original's attack minus Retrained's, and whether it is more than its error.

    over : what the interval is over, seeds or people
    sentence : what a closed gate says at the head of a table; empty where it is open
    """

    is_open: bool
    difference: float | None
    interval: list[float] | None
    over: str | None
    people: int | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def gate_of(records: Sequence[RunRecord]) -> Gate | None:
    """Return the gate of a set of runs; None where no model was unlearned or none was trained.

    Original is held against Retrained of its train seed, its draw of people (`seed`) and its
    evaluation seed. From five train seeds
    on the interval is over them; of fewer it is over people within the runs, whose errors are not
    taken as independent between seeds: the same people may be attacked in all of them.
    """
    if not any(record.unlearned for record in records):
        return None
    attacked = [record for record in records if record.mia]
    originals, retrained = (of_label(attacked, name) for name in (ORIGINAL, RETRAINED))
    if not originals and not retrained:
        return None
    references = {(r.train_seed, r.seed, r.metrics_seed): r for r in retrained}
    pairs = [
        (record, reference)
        for record in originals
        if (reference := references.get((record.train_seed, record.seed, record.metrics_seed)))
    ]
    if not pairs:
        why = f"{ORIGINAL} and {RETRAINED} are not both there, measured alike."
        return Gate(False, None, None, None, None, f"{CLOSED}: {why}")
    return _judged(pairs)


def _judged(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Gate:
    difference, over = _difference(pairs)
    low, high = interval = difference.interval()
    people = fewest_people([record for pair in pairs for record in pair])
    text = f"{difference.mean:+.3f} (95 % interval over {over} {low:+.3f} to {high:+.3f})"
    why = ""
    if people is not None and people < MIN_PEOPLE:
        why = (
            f"{counted(people, 'person', 'people')} on a side cannot tell, it takes {MIN_PEOPLE}; "
            f"the attack scores {text} more on {ORIGINAL} than on {RETRAINED}."
        )
    elif interval[0] <= 0:
        why = (
            f"the attack scores {text} more on {ORIGINAL}, which saw the forgotten people, than on "
            f"{RETRAINED}, which did not: no more than its error. What it cannot tell of these two "
            "it cannot tell of any method."
        )
    sentence = f"{CLOSED}: {why}" if why else ""
    return Gate(not why, difference.mean, interval, over, people, sentence)


def _difference(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> tuple[Estimate, str]:
    """Return the mean difference of the attack with its error, and what that is over."""
    values = [
        (own.train_seed, own.seed, own.mia["accuracy"] - other.mia["accuracy"])
        for own, other in pairs
    ]
    seeds = {train_seed for train_seed, _, _ in values}
    estimate = over_seeds(values)
    if len(seeds) >= MIN_SEEDS and estimate is not None:
        return estimate, "seeds"
    error = fmean(attack_error(own.mia, other.mia) for own, other in pairs)
    return Estimate(fmean(value for _, _, value in values), error, math.inf), "people"


def fewest_people(records: Sequence[RunRecord]) -> int | None:
    """Return the fewest people on a side of the attack in any run; None where none counted them."""
    counts = [r.mia.get(f"num_{side}_people") for r in records for side in ("member", "nonmember")]
    return min((int(count) for count in counts if count is not None), default=None)
