"""Which rows of a comparison are tested against each other, named before its runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlfd_dist.errors import ConfigError

if TYPE_CHECKING:
    from .comparison import Comparison


def named_contrasts(comparison: Comparison) -> dict[str, Any]:
    """Return the contrasts of a comparison as comparison.json holds them: pairs of labels, margin.

    Raises ConfigError for a row that the comparison does not have.
    """
    # scipy, which the report loads, takes as long to load as all of planning.
    from dlfd_dist.report.contrasts import BEST, default_pairs
    from dlfd_dist.report.records import ROLE_LABELS, label_of
    from dlfd_dist.report.summary import in_order

    rows = dict(ROLE_LABELS)
    methods = {config.run.name: label_of(config.run.name) for config in comparison.configs}
    if comparison.compare.contrasts is None:
        pairs = default_pairs(in_order([*rows.values(), *methods.values()]))
    else:
        others = {**rows, **methods, "best": BEST}
        pairs = [
            (_row(subject, methods, pair), _row(other, others, pair))
            for pair in comparison.compare.contrasts
            for subject, other in [pair.split("/")]
        ]
    return {"pairs": [list(pair) for pair in pairs], "margin": comparison.compare.margin}


def _row(name: str, rows: Mapping[str, str], pair: str) -> str:
    if name.strip() not in rows:
        raise ConfigError(
            f"compare.contrasts={pair} names {name.strip()!r}, which is no row of this comparison: "
            f"give one of {', '.join(rows)}."
        )
    return rows[name.strip()]
