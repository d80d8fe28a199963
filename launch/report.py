"""dlfd report: a page for runs or comparisons that are finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import RunRecord, load_with_references, read_comparison
from dlfd_dist.report.tables import summarise, text_table


def run_report(words: Sequence[str], *, out: str | None, dry_run: bool, as_json: bool) -> int:
    """Write a page from run directories; a comparison directory stands for all its runs."""
    if not words:
        raise ConfigError("Nothing to report: give one or more run directories.")
    records, missing, titles = _read([Path(word) for word in words])
    page = Path(out) if out else Path(words[0]) / "report.html"
    if dry_run:
        _print_plan(records, page, as_json=as_json)
        return 0
    try:
        write_report(records, page, title=titles[0], missing=missing)
    except OSError as err:
        raise RunDirError(
            f"The report {page} cannot be written ({err.strerror}): give another --out PAGE.html."
        ) from err
    rows = summarise(records)
    if as_json:
        print(json.dumps({"summary": rows, "report": str(page)}, indent=2, sort_keys=True))
    else:
        print(text_table(rows))
        print(f"report: {page}")
    return 0


def _print_plan(records: Sequence[RunRecord], page: Path, *, as_json: bool) -> None:
    runs = [str(record.path) for record in records]
    files = [str(page), f"{page.parent / page.stem}_figures/"]
    if as_json:
        print(json.dumps({"dry_run": True, "runs": runs, "files": files}, indent=2, sort_keys=True))
        return
    print("# runs that would be reported")
    for run in runs:
        print(f"  {run}")
    print("# files that would be written")
    for file in files:
        print(f"  {file}")


def _read(paths: Sequence[Path]) -> tuple[list[RunRecord], list[str], list[str]]:
    """Return records, names of missing runs and titles; each run once, however often named."""
    records: dict[str, RunRecord] = {}
    missing, titles = [], []
    for path in paths:
        if (path / "comparison.json").is_file():
            comparison = read_comparison(path)
            found = comparison.records
            missing += comparison.missing
            titles.append(comparison.title)
        else:
            found = load_with_references(path)
            titles.append(f"Unlearning report: {found[-1].result['title']}")
        records |= {str(record.path.resolve()): record for record in found}
    return list(records.values()), missing, titles
