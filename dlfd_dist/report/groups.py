"""Accuracy by group of people in tables and page: what unlearning cost each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ..metrics.people import MIN_PEOPLE
from .records import RunRecord, of_label

PART = "test"
"""The part that tables and page show; result.json also has val."""


@dataclass(frozen=True)
class GroupRow:
    """One group under one method, means over its runs."""

    method: str
    column: str
    group: str
    people: int
    images: int
    too_small: bool
    before: float | None
    after: float
    change: float | None
    worst: bool
    """whether its accuracy fell most of the groups that are large enough"""


def group_rows(records: Sequence[RunRecord]) -> list[GroupRow]:
    """Return the groups of every method, in the order of the records; empty without data.groups."""
    rows = []
    for label in dict.fromkeys(record.label for record in records):
        runs = [r.result["groups"] for r in of_label(records, label) if r.result.get("groups")]
        for column in runs[0] if runs else ():
            parts = [run[column][PART]["groups"] for run in runs if column in run]
            rows += _of_column(label, column, parts)
    return rows


def _of_column(label: str, column: str, runs: Sequence[Mapping[str, Any]]) -> list[GroupRow]:
    rows = []
    for group in runs[0]:
        own = [run[group] for run in runs if group in run]
        changes = [figures["change"] for figures in own if figures["change"] is not None]
        before = [figures["before"] for figures in own if figures["before"] is not None]
        rows.append(GroupRow(
            label, column, group, own[0]["people"], own[0]["images"], own[0]["too_small"],
            fmean(before) if before else None, fmean(figures["accuracy"] for figures in own),
            fmean(changes) if changes else None, worst=False,
        ))  # fmt: skip
    known = [row for row in rows if row.change is not None and not row.too_small]
    worst = min(known, key=lambda row: row.change or 0.0, default=None)
    return [replace(row, worst=row is worst) for row in rows]


def group_lines(records: Sequence[RunRecord]) -> list[str]:
    """Return sentences per method and column: whose accuracy fell most, and every group's."""
    rows = group_rows(records)
    lines = []
    for worst in (row for row in rows if row.worst):
        all_groups = [r for r in rows if (r.method, r.column) == (worst.method, worst.column)]
        images = sum(row.images for row in all_groups)
        mean = sum((row.change or 0.0) * row.images for row in all_groups) / images
        lines.append(
            f"{worst.method}: the test accuracy of {worst.column}={worst.group} changed by "
            f"{worst.change:+.3f}, that of all by {mean:+.3f}; no {worst.column} lost more."
        )
    lines += _before_after(rows)
    small = list(dict.fromkeys(f"{r.column}={r.group}" for r in rows if r.too_small))
    if small:
        lines.append(
            f"Too small for a statement (fewer than {MIN_PEOPLE} people in test): "
            f"{', '.join(small)}."
        )
    return lines


def _before_after(rows: Sequence[GroupRow]) -> list[str]:
    """Return a sentence per method and column: the accuracy of every group before and after."""
    lines = []
    for method, column in dict.fromkeys((r.method, r.column) for r in rows if r.before is not None):
        groups = ", ".join(
            f"{row.group} {_number(row.before, '.3f')} to {_number(row.after, '.3f')}"
            for row in rows
            if (row.method, row.column) == (method, column)
        )
        lines.append(f"{method}, test accuracy before and after by {column}: {groups}.")
    return lines


def group_section(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Return what the page shows of groups: heads, rows of cells, and sentences; None without."""
    rows = group_rows(records)
    if not rows:
        return None
    shown = [
        {
            "method": row.method,
            "group": f"{row.column}={row.group}",
            "people": row.people,
            "before": _number(row.before, ".3f"),
            "after": _number(row.after, ".3f"),
            "change": "too small" if row.too_small else _number(row.change, "+.3f"),
            "worst": row.worst,
        }
        for row in rows
    ]
    return {"rows": shown, "lines": group_lines(records)}


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
