"""dlfd report: a page for runs or comparisons that are finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dlfd_dist.errors import ConfigError
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import RunRecord, load_comparison, load_run
from dlfd_dist.report.tables import summarise, text_table


def run_report(words: Sequence[str], *, out: str | None, dry_run: bool, as_json: bool) -> int:
    """Write a page from run directories; a comparison directory stands for all its runs."""
    if not words:
        raise ConfigError("Nothing to report: give one or more run directories.")
    records: list[RunRecord] = []
    for word in words:
        path = Path(word)
        is_comparison = (path / "comparison.json").is_file()
        records += load_comparison(path) if is_comparison else [load_run(path)]
    page = Path(out) if out else Path(words[0]) / "report.html"
    if dry_run:
        print(f"would write {page} from {len(records)} runs")
        return 0
    title = str(records[0].result["title"])
    write_report(records, page, title=f"Unlearning report: {title}")
    rows = summarise(records)
    if as_json:
        print(json.dumps({"summary": rows, "report": str(page)}, indent=2, sort_keys=True))
    else:
        print(text_table(rows))
        print(f"report: {page}")
    return 0
