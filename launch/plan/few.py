"""Whether the people of a request and of test are enough to tell methods apart."""

from __future__ import annotations

from dlfd_dist.data.loaders import ResolvedRows
from dlfd_dist.metrics.people import MIN_PEOPLE
from dlfd_dist.plain import counted


def too_few(rows: ResolvedRows) -> str:
    """Return the sentence that says so where they are not; empty where they are."""
    import numpy as np

    parts = {"to forget": rows.splits.forget, "in test": rows.splits.test}
    people = {name: len(np.unique(rows.manifest.identities[ids])) for name, ids in parts.items()}
    if min(people.values()) >= MIN_PEOPLE:
        return ""
    counts = " and ".join(
        f"{counted(number, 'person', 'people')} {name}" for name, number in people.items()
    )
    return (
        f"with {counts} no method can be ranked by its forgetting: it takes {MIN_PEOPLE} of each."
    )
