"""One row per method: means and 95 % intervals over seeds, flags, and the test against DLFD."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ..config import read_by
from ..metrics.gap import gap_to_retrained
from .intervals import hierarchical_interval, independent_values, over_evaluations, t_interval
from .paired import paired_with_dlfd
from .records import DLFD, DLFD_OFFICIAL, FINE_TUNE, ORIGINAL, RETRAINED, RunRecord, of_label

METRICS = (
    "nomus",
    "test_accuracy",
    "forgetting_score",
    "retain_accuracy",
    "forget_accuracy",
    "val_accuracy",
    "mia_accuracy",
    "mia_auc",
    "mia_tpr_at_1pct",
    "mia_paper",
    "nomus_paper",
    "tail_share",
    "silhouette",
    "linear_probe_accuracy",
    "scatter_ratio",
    "gap_to_retrained",
    "relearn_steps",
    "relearn_steps_retrained",
    "anamnesis_index",
    "wall_seconds",
    "device_seconds",
    "peak_memory_mb",
)

BOOTSTRAPPED = ("nomus", "test_accuracy", "forgetting_score", "mia_auc", "gap_to_retrained")
"""Metrics with a bootstrap over train seeds, seeds of unlearning, and evaluations of one run."""

# Settings in which the seeds of one row may differ.
_PER_SEED = ("seed", "checkpoint", "reference", "run", "runtime")

AXES = {
    "train_seeds": "train seeds",
    "seeds": "seeds of unlearning",
    "metrics_seeds": "evaluation seeds",
}
"""The axes of seeds, outermost first, and what they are called."""


def summarise(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row per method label.

    `<metric>` is the mean over train seeds of the means over their runs, `<metric>_interval` its
    [lo, hi] over train seeds, or over runs where `one_training` says that all unlearn one trained
    model; None where fewer than two have the metric. `floor`, `low_power` and
    `over_forgetting` say that the flag of that name fired in most of the runs, `relearns_late` that
    the relearn time is a lower bound, for a run was not back in the steps given. `paired` holds the
    tests against DLFD, None where there are none. `<metric>_bootstrap_interval` is there for the
    main metrics where more than one axis of seeds varies (`axes`), and else None. Rows of a single
    run also carry its bootstrap intervals, `attack_interval` and `attack_auc_interval`.
    """
    records = with_gaps(records)
    paired = paired_with_dlfd(records)
    rows = [
        {**_row(label, of_label(records, label)), "paired": _given(paired.get(label, {}))}
        for label in labels_in_order(records)
    ]
    for row in rows:
        if row["method"] == RETRAINED:  # its gaps share their ends: no independent values
            row.update(gap_to_retrained_interval=None, gap_to_retrained_bootstrap_interval=None)
    return rows


def labels_in_order(records: Sequence[RunRecord]) -> list[str]:
    """Return the method labels: Original, Retrained, Fine-tune, others as they come, DLFD last."""
    return sorted(dict.fromkeys(record.label for record in records), key=_order)


def _order(label: str) -> int:
    first, last = (ORIGINAL, RETRAINED, FINE_TUNE), (DLFD_OFFICIAL, DLFD)
    if label in first:
        return first.index(label) - len(first)
    return last.index(label) + 1 if label in last else 0


def _given(tests: dict[str, Any]) -> dict[str, Any] | None:
    return tests if any(tests.values()) else None


def _row(label: str, records: Sequence[RunRecord]) -> dict[str, Any]:
    seeds, train_seeds = ({getattr(r, n) for r in records} for n in ("seed", "train_seed"))
    only = records[0].mia if len(records) == 1 else {}
    over = [record.over_forgetting for record in records]
    row: dict[str, Any] = {
        "method": label,
        "unlearned": records[0].unlearned,
        "seeds": sorted(seeds),
        "train_seeds": sorted(train_seeds),
        "num_seeds": len(seeds),
        "one_seed": len(seeds) == 1 == len(train_seeds),
        "one_training": len(seeds) > 1 == len(train_seeds),
        "metrics_seeds": sorted({record.metrics_seed for record in records}),
        "crossed": any(record.seed != record.train_seed for record in records),
        **_flag("floor", [(r.mia.get("floor"), r.mia.get("floor_reason")) for r in records]),
        **_flag("low_power", [(bool(r.low_power), r.low_power) for r in records]),
        "relearns_late": any(record.relearns_late for record in records),
        **_flag("over_forgetting", [(o.get("flag"), o.get("reason")) for o in over]),
        "mixed_settings": len(set(map(_settings, _of_first_verb(records)))) > 1,
        "reference_people": records[0].result.get("reference_people"),
        "attack_interval": only.get("interval"),
        "attack_auc_interval": only.get("auc_interval"),
    }
    row["axes"] = _axes(row)
    for metric in METRICS:
        found = [(r.train_seed, r.seed, v) for r in records if (v := r.value(metric)) is not None]
        per_run = over_evaluations(found)
        values = independent_values((train_seed, v) for (train_seed, _), v in per_run.items())
        row[metric] = float(values.mean()) if found else None
        row[f"{metric}_interval"] = t_interval(values)
        if metric in BOOTSTRAPPED:
            several = len(row["axes"]) > 1
            row[f"{metric}_bootstrap_interval"] = hierarchical_interval(found) if several else None
    return row


def _axes(row: dict[str, Any]) -> list[str]:
    """Return the axes of seeds that vary; a seed that goes with its train seed is no axis."""
    varying = [name for name in AXES if len(row[name]) > 1]
    alone = not row["crossed"] and "train_seeds" in varying
    return [name for name in varying if not (alone and name == "seeds")]


def _flag(name: str, found: Sequence[tuple[bool | None, str | None]]) -> dict[str, Any]:
    """Return whether a flag fired in most of the runs, and the first reason given."""
    reasons = [reason or "" for fired, reason in found if fired]
    return {name: 2 * len(reasons) > len(found), f"{name}_reason": next(iter(reasons), "")}


def _of_first_verb(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Leave out the further measurements of a trained model."""
    return [record for record in records if record.config["verb"] == records[0].config["verb"]]


def _settings(record: RunRecord) -> str:
    read = read_by(record.config["verb"], record.config)
    values = {key: v for key, v in read.items() if key not in _PER_SEED}
    for section in ("metrics", "forget"):
        values[section] = {k: v for k, v in values.get(section, {}).items() if k != "seed"}
    return json.dumps(values, sort_keys=True, default=str)


def with_gaps(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Fill in the gap to Retrained of runs that were made without a reference, such as Original.

    The reference is the Retrained run of the same train seed without the same people, measured with
    the same seed; where there is none the gap stays open. Retrained itself is held against
    Retrained of the other train seeds without the same people, which tells what the seed alone
    makes of the gap.
    """
    retrained = [(r, _flat(r)) for r in of_label(records, RETRAINED) if r.mia]

    def filled(record: RunRecord) -> RunRecord:
        known = record.result.get("gap_to_retrained") is not None
        of_itself = record.label == RETRAINED
        references = [
            flat
            for other, flat in retrained
            if (other.train_seed == record.train_seed) != of_itself
            and other.metrics_seed == record.metrics_seed
            and other.request_digest == record.request_digest
        ]
        if known or not references or not record.mia:
            return record
        gap = fmean(gap_to_retrained(_flat(record), reference) for reference in references)
        return replace(record, result={**record.result, "gap_to_retrained": gap})

    return [filled(record) for record in records]


def _flat(record: RunRecord) -> dict[str, Any]:
    return {**record.result, "mia_accuracy": record.mia.get("accuracy")}
