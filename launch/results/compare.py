"""The results of a comparison: comparison.json, summary.json, tables and the page."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dlfd_dist.report.records import read_comparison
from dlfd_dist.report.summary import Findings, findings_of, summarise
from dlfd_dist.report.tables import Row, contrasts_csv
from dlfd_dist.run_dir import RunDir, write_json, write_text

from ..plan.runs import Run
from .ended import Ended
from .report import tables_of, write_page

COMPARE_LOCK = "compare.lock"
"""Held while files of a comparison are written, by a campaign's report job too."""
FILES = (
    "comparison.json", "summary.json", "table.md", "table.csv", "table.tex", "contrasts.csv",
    "report.html",
)  # fmt: skip


class Written(NamedTuple):
    """What the files of a comparison say."""

    missing: list[str]
    """The runs without a result."""
    rows: list[Row]
    findings: Findings


def write_comparison(ended: Ended) -> Written:
    """Write comparison.json, summary.json, tables and page; return what they say."""
    out, done, missing = ended.plan.path, ended.done, ended.missing
    data_title = RunDir(next(iter(done.values()))).read_result()["title"]
    content = {
        "title": f"{ended.title}: {data_title}",
        "runs": [_entry(run, done[run.label], out) for run in ended.wanted if run.label in done],
        "missing": missing, "tuning": ended.tuning, "contrasts": ended.contrasts,
    }  # fmt: skip
    write_json(out / "comparison.json", content)
    runs = replace(read_comparison(out), missing=missing)
    rows, findings = summarise(runs.records), findings_of(runs.records, runs.contrasts)
    write_json(out / "summary.json", {**findings.to_dict(), "rows": rows})
    tables = tables_of(runs, rows, findings)
    for ending in (".md", ".tex", ".csv"):
        write_text(out / f"table{ending}", tables[ending]())
    write_text(out / "contrasts.csv", contrasts_csv(findings))
    write_page(runs, out / "report.html")
    return Written(missing, rows, findings)


def _entry(run: Run, path: Path, out: Path) -> dict[str, Any]:
    names = ("role", "method", "variant", "seed", "train_seed")
    return {name: getattr(run, name) for name in names} | {"run_dir": os.path.relpath(path, out)}
