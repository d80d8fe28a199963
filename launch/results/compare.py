"""What a comparison found: comparison.json, summary.json, tables and the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import read_comparison
from dlfd_dist.report.summary import Findings, findings_of, summarise
from dlfd_dist.report.tables import (
    Row,
    contrasts_csv,
    csv_table,
    head_line,
    latex_table,
    lines_below,
    markdown_table,
    text_grid,
    text_table,
)
from dlfd_dist.run_dir import write_json, write_text
from dlfd_dist.terminal import print_table

from ..plan.runs import Run

COMPARE_LOCK = "compare.lock"
"""Held while files of a comparison are written, by a campaign's report job too."""
FILES = (
    "comparison.json", "summary.json", "table.md", "table.csv", "table.tex", "contrasts.csv",
    "report.html",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A comparison whose runs have ended."""

    wanted: list[Run]
    """Every run of the table."""
    done: dict[str, Path]
    """The directories of the finished ones by label."""
    failures: dict[str, str]
    tuning: dict[str, Any] | None
    data_title: str
    contrasts: dict[str, Any]
    """Pairs of rows and the margin of a tie, named before the runs."""


def show_summary(rows: Sequence[Row], tuning: dict[str, Any] | None, findings: Findings) -> None:
    """Print the table of a summary; on a terminal what stands below it is not in the table."""
    heads, *cells = text_grid(rows)
    below = lines_below(rows, tuning, findings)
    plain = text_table(rows, tuning, findings)
    print_table(cells, heads=heads, plain=plain, title=head_line(findings), below=below)


def write_results(out: Path, outcome: Outcome, title: str) -> list[str]:
    """Write comparison.json, summary.json, tables and page; return the runs that are missing."""
    full_title = f"{title}: {outcome.data_title}"
    entries = [
        _entry(run, outcome.done[run.label], out)
        for run in outcome.wanted
        if run.label in outcome.done
    ]
    missing = [run.label for run in outcome.wanted if run.label not in outcome.done]
    content = {
        "title": full_title, "runs": entries, "missing": missing, "tuning": outcome.tuning,
        "contrasts": outcome.contrasts,
    }  # fmt: skip
    write_json(out / "comparison.json", content)
    records = read_comparison(out).records
    rows, findings = summarise(records), findings_of(records, outcome.contrasts)
    write_json(out / "summary.json", {**findings.to_dict(), "rows": rows})
    write_text(out / "table.md", markdown_table(rows, outcome.tuning, missing, findings))
    write_text(out / "table.tex", latex_table(rows, outcome.tuning, missing, findings))
    write_text(out / "table.csv", csv_table(rows, findings))
    write_text(out / "contrasts.csv", contrasts_csv(findings))
    page = out / "report.html"
    write_report(
        records,
        page,
        title=full_title,
        missing=missing,
        tuning=outcome.tuning,
        contrasts=outcome.contrasts,
    )
    return missing


def _entry(run: Run, path: Path, out: Path) -> dict[str, Any]:
    names = ("role", "method", "variant", "seed", "train_seed")
    return {name: getattr(run, name) for name in names} | {"run_dir": os.path.relpath(path, out)}
