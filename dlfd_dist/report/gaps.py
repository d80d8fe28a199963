"""The gap to Retrained of runs that were made without a reference, such as Original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ..metrics import gap_parts, gap_to_retrained, salun_gap, tug_of_war
from .records import RETRAINED, RunRecord, of_label

PARTS = ("retain", "forget", "test")


class Stored(NamedTuple):
    """What a run said of a part, read back."""

    ids: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    people: np.ndarray


def with_gaps(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Fill in the gap to Retrained, and its parts, of runs that were made without a reference.

    The reference is the Retrained run of the same train seed without the same people, measured with
    the same seed. Where there is none, or it was measured on other images, or a run kept no logits,
    the gap stays open. Retrained itself is held against Retrained of the other train seeds without
    the same people, which tells what the seed alone makes of the gap.
    """
    references = of_label([record for record in records if record.mia], RETRAINED)
    return [_filled(record, references) for record in records]


def _filled(record: RunRecord, references: Sequence[RunRecord]) -> RunRecord:
    known = record.result.get("gap_to_retrained") is not None
    if known or not record.mia:
        return record
    of_itself = record.label == RETRAINED
    others = [
        other
        for other in references
        if (other.train_seed == record.train_seed) != of_itself
        and other.metrics_seed == record.metrics_seed
        and other.request_digest == record.request_digest
    ]
    distances = [near for other in others if (near := nearness(record, other)) is not None]
    if not distances:
        return record
    gap = fmean(near["gap_to_retrained"] for near in distances)
    near = distances[0]["against_retrained"] if len(distances) == 1 and not of_itself else None
    changes = {"gap_to_retrained": gap} | ({"against_retrained": near} if near else {})
    return replace(record, result={**record.result, **changes})


def nearness(record: RunRecord, retrained: RunRecord) -> dict[str, Any] | None:
    """Return the gap of a run to a Retrained and its parts; None where they cannot be compared."""
    own, other = _stored(record), _stored(retrained)
    if own is None or other is None:
        return None
    if any(not np.array_equal(own[part].ids, other[part].ids) for part in PARTS):
        return None
    parts = gap_parts(own, other, (record.mia, retrained.mia))
    return {
        "gap_to_retrained": gap_to_retrained(parts),
        "against_retrained": {
            "parts": {name: asdict(part) for name, part in parts.items()},
            "salun_gap": salun_gap(record.result, retrained.result),
            "tug_of_war": tug_of_war(record.result, retrained.result),
        },
    }


def _stored(record: RunRecord) -> dict[str, Stored] | None:
    stored = {}
    for part in PARTS:
        known = [record.tensor(f"{part}.{name}") for name in ("ids", "logits", "labels", "person")]
        tensors = [tensor for tensor in known if tensor is not None]
        if len(tensors) < len(known):
            return None
        stored[part] = Stored(*tensors)
    return stored
