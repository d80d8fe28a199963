"""Whether all ranks see the same data, request and checkpoints before the first of them writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ..errors import DataError
from ..runtime.collectives import Collectives

WHAT = {
    "data": "other data", "images": "other images", "request": "another forget request",
    "removed": "other removed images",
    "checkpoint": "another checkpoint", "reference": "another reference",
    "model_code": "other code of the model", "features_code": "other code of model.features",
    "method_code": "other code of the method", "data_code": "other code of the data set",
    "strangers": "another method.reference_manifest",
}  # fmt: skip
"""Names of inputs, and what a rank has where its input differs."""


class RanksDifferError(DataError):
    """Ranks see different files under the same names."""

    on_all_ranks = True


def check_agreement(inputs: Mapping[str, str], signature: str, collectives: Collectives) -> None:
    """Raise RanksDifferError on every rank where a rank has other inputs than the first."""
    if collectives.world_size == 1:
        return
    whole = repr((sorted(inputs.items()), signature))
    own = np.array([[_number(text) for text in (*map(inputs.get, WHAT), whole)]])
    seen = collectives.gather_numpy(own, collectives.world_size)
    for rank, numbers in enumerate(seen):
        if (numbers == seen[0]).all():
            continue
        named = [
            what for what, other in zip(WHAT.values(), numbers != seen[0], strict=False) if other
        ]
        raise RanksDifferError(
            f"Rank {rank} reads {' and '.join(named) or 'another configuration'} than rank 0: give "
            "paths that lead to the same files on every node."
        )


def _number(text: str | None) -> int:
    """Return 60 bits of the SHA-256 of a text."""
    return int(hashlib.sha256(repr(text).encode()).hexdigest()[:15], 16)
