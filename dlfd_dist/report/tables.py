"""One table row per method: means and 95 % intervals over seeds, as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..metrics.gap import gap_to_retrained
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
    "gap_to_retrained",
    "wall_seconds",
    "device_seconds",
    "peak_memory_mb",
)
COLUMNS = (
    ("NoMUS", "nomus"),
    ("Test acc.", "test_accuracy"),
    ("Forgetting", "forgetting_score"),
    ("Gap", "gap_to_retrained"),
)
ONE_SEED, AT_FLOOR, MIXED = "*", "†", "‡"
FOOTNOTES = {
    ONE_SEED: "One seed: there is no interval, and a difference may be chance.",
    AT_FLOOR: "The attack is at its floor in this row: it does no better than guessing, or the set "
    "is too small; a low score then says little about what the model remembers.",
    MIXED: "The runs of this row differ in more than their seed.",
}
DASH = "–"

# Settings in which the seeds of one row may differ.
_PER_SEED = ("seed", "checkpoint", "reference", "run", "runtime")


def _value(record: RunRecord, metric: str) -> float | None:
    if metric.startswith("mia_") and metric != "mia_paper":
        return record.mia.get(metric.removeprefix("mia_"))
    return record.result.get(metric)


def _interval(values: np.ndarray) -> list[float] | None:
    """Return the 95 % Student-t interval of the mean of `values`."""
    if len(values) < 2:
        return None
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.975) * error)
    mean = float(values.mean())
    return [mean - half, mean + half]


def _settings(record: RunRecord) -> str:
    values = {key: v for key, v in record.config.items() if key not in _PER_SEED}
    return json.dumps(values, sort_keys=True, default=str)


def _order(label: str) -> int:
    first, last = (ORIGINAL, RETRAINED, FINE_TUNE), (DLFD_OFFICIAL, DLFD)
    if label in first:
        return first.index(label) - len(first)
    return last.index(label) + 1 if label in last else 0


def labels_in_order(records: Sequence[RunRecord]) -> list[str]:
    """Return the method labels: Original, Retrained, Fine-tune, others as they come, DLFD last."""
    return sorted(dict.fromkeys(record.label for record in records), key=_order)


def _row(label: str, records: Sequence[RunRecord]) -> dict[str, Any]:
    seeds = sorted({record.seed for record in records})
    floors = [record.mia for record in records if record.mia.get("floor")]
    only = records[0].mia if len(records) == 1 else {}
    row: dict[str, Any] = {
        "method": label,
        "seeds": seeds,
        "num_seeds": len(seeds),
        "one_seed": len(seeds) == 1,
        "floor": 2 * len(floors) > len(records),
        "floor_reason": next((f["floor_reason"] for f in floors if f.get("floor_reason")), ""),
        "mixed_settings": len({_settings(record) for record in records}) > 1,
        "attack_interval": only.get("interval"),
        "attack_auc_interval": only.get("auc_interval"),
    }
    for metric in METRICS:
        found = [v for record in records if (v := _value(record, metric)) is not None]
        values = np.asarray(found, dtype=float)
        row[metric] = float(values.mean()) if found else None
        row[f"{metric}_interval"] = _interval(values)
    return row


def with_gaps(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Fill in the gap to Retrained of runs that were made without a reference, such as Original.

    The reference is the Retrained run of the same seed; where there is none the gap stays open.
    """
    retrained = {r.seed: _flat(r) for r in of_label(records, RETRAINED) if r.mia}

    def filled(record: RunRecord) -> RunRecord:
        known = record.result.get("gap_to_retrained") is not None
        if known or record.label == RETRAINED or record.seed not in retrained or not record.mia:
            return record
        gap = gap_to_retrained(_flat(record), retrained[record.seed])
        return replace(record, result={**record.result, "gap_to_retrained": gap})

    return [filled(record) for record in records]


def _flat(record: RunRecord) -> dict[str, Any]:
    return {**record.result, "mia_accuracy": record.mia.get("accuracy")}


def summarise(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row per method label: mean and 95 % interval of every metric over its seeds.

    `<metric>_interval` is [lo, hi], or None where fewer than two seeds have the metric. `floor`
    says that the attack's floor flag fired in most of the seeds. Rows of a single run also carry
    its bootstrap intervals, `attack_interval` and `attack_auc_interval`.
    """
    records = with_gaps(records)
    return [_row(label, of_label(records, label)) for label in labels_in_order(records)]


def format_value(row: dict[str, Any], metric: str, *, digits: int = 3) -> str:
    """Return a mean with the half-width of its interval, such as `0.782 ± 0.011`."""
    mean, interval = row[metric], row[f"{metric}_interval"]
    if mean is None:
        return DASH
    if interval is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {(interval[1] - interval[0]) / 2:.{digits}f}"


def marks(row: dict[str, Any]) -> dict[str, str]:
    """Return the footnote marks of a row by the column they stand in."""
    return {
        "method": MIXED if row["mixed_settings"] else "",
        "seeds": ONE_SEED if row["one_seed"] else "",
        "forgetting_score": AT_FLOOR if row["floor"] else "",
    }


def footnotes(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the (mark, explanation) pairs that the rows need."""
    used = {mark for row in rows for mark in marks(row).values()}
    return [(mark, text) for mark, text in FOOTNOTES.items() if mark in used]


def _cells(row: dict[str, Any]) -> list[str]:
    mark = marks(row)
    cells = [row["method"] + mark["method"], f"{row['num_seeds']}{mark['seeds']}"]
    return cells + [format_value(row, metric) + mark.get(metric, "") for _, metric in COLUMNS]


def _grid(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [["Method", "Seeds", *(title for title, _ in COLUMNS)], *map(_cells, rows)]


def text_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for a terminal, columns aligned, footnotes below."""
    grid = _grid(rows)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(g, widths, strict=True)).rstrip() for g in grid]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(f"{mark} {text}" for mark, text in footnotes(rows))]) + "\n"


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown, footnotes below."""
    grid = [[cell.replace("|", "\\|").replace("*", "\\*") for cell in g] for g in _grid(rows)]
    grid.insert(1, ["---", *["---:"] * (len(grid[0]) - 1)])
    lines = [f"| {' | '.join(cells)} |" for cells in grid]
    notes = [f"\n{mark.replace('*', chr(92) + '*')} {text}" for mark, text in footnotes(rows)]
    return "\n".join([*lines, *notes]) + "\n"


def csv_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return every metric at full precision: mean, `<metric>_lo` and `<metric>_hi`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bounds = [name for metric in METRICS for name in (metric, f"{metric}_lo", f"{metric}_hi")]
    writer.writerow(["method", "seeds", "num_seeds", "one_seed", "floor", *bounds])
    for row in rows:
        cells = [row["method"], " ".join(map(str, row["seeds"])), row["num_seeds"]]
        cells += [row["one_seed"], row["floor"]]
        for metric in METRICS:
            cells += [row[metric], *(row[f"{metric}_interval"] or (None, None))]
        writer.writerow(cells)
    return out.getvalue()
