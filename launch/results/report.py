"""dlfd report: a page for runs or comparisons that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import (
    Comparison,
    RunRecord,
    load_with_references,
    read_comparison,
)
from dlfd_dist.report.summary import Findings, findings_of, summarise
from dlfd_dist.report.tables import Row, csv_table, latex_table, markdown_table, text_table
from dlfd_dist.run_dir import write_text

PAGES = (".html", ".htm")


def run_report(words: Sequence[str], *, out: str | None, dry_run: bool, as_json: bool) -> int:
    """Write a page from run directories; a comparison directory stands for all its runs."""
    if not words:
        raise ConfigError("Nothing to report: give one or more run directories.")
    found = _read([Path(word) for word in words])
    records = found.records
    page = Path(out) if out else Path(words[0]) / "report.html"
    rows, findings = summarise(records), findings_of(records, found.contrasts)
    table = _table(page, rows, findings, found)
    if dry_run:
        _print_plan(records, page, is_page=table is None, as_json=as_json)
        return 0
    try:
        if table is None:
            write_report(
                records, page, title=found.title, missing=found.missing, tuning=found.tuning,
                contrasts=found.contrasts,
            )  # fmt: skip
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            write_text(page, table)
    except OSError as err:
        raise RunDirError(
            f"The report {page} cannot be written ({err.strerror}): give another --out PAGE.html."
        ) from err
    if as_json:
        shown = {"summary": rows, **findings.to_dict(), "report": str(page)}
        print(json.dumps(shown, indent=2, sort_keys=True))
    else:
        print(text_table(rows, found.tuning, findings))
        print(f"report: {page}")
    return 0


def _table(out: Path, rows: Sequence[Row], findings: Findings, found: Comparison) -> str | None:
    """Return the table that the name of a file asks for by its ending; None: the page.

    Raises ConfigError where nothing is written to files of such a name.
    """
    ending = out.suffix.lower()
    if ending in PAGES:
        return None
    tables: dict[str, Callable[[], str]] = {
        ".csv": lambda: csv_table(rows, findings),
        ".md": lambda: markdown_table(rows, found.tuning, found.missing, findings),
        ".tex": lambda: latex_table(rows, found.tuning, found.missing, findings),
        ".txt": lambda: text_table(rows, found.tuning, findings),
    }
    if ending not in tables:
        raise ConfigError(
            f"--out {out} {f'ends in {ending}' if ending else 'has no ending'}: give PAGE.html, or "
            f"one of {', '.join(tables)} for the table alone."
        )
    return tables[ending]()


def _print_plan(records: Sequence[RunRecord], page: Path, *, is_page: bool, as_json: bool) -> None:
    runs = [str(record.path) for record in records]
    files = [str(page), *([f"{page.parent / page.stem}_figures/"] if is_page else [])]
    if as_json:
        print(json.dumps({"dry_run": True, "runs": runs, "files": files}, indent=2, sort_keys=True))
        return
    print("# runs that would be reported")
    for run in runs:
        print(f"  {run}")
    print("# files that would be written")
    for file in files:
        print(f"  {file}")


def _read(paths: Sequence[Path]) -> Comparison:
    """Return the runs of all paths as one comparison; each run once, however often named."""
    records: dict[str, RunRecord] = {}
    read = [_read_one(path) for path in paths]
    for one in read:
        records |= {str(record.path.resolve()): record for record in one.records}
    # What several comparisons tuned, each on models of its own, makes no common record.
    alone = len(read) == 1
    tuning, contrasts = (read[0].tuning, read[0].contrasts) if alone else (None, None)
    missing = [name for one in read for name in one.missing]
    return Comparison(read[0].title, list(records.values()), missing, tuning, contrasts)


def _read_one(path: Path) -> Comparison:
    if (path / "comparison.json").is_file():
        return read_comparison(path)
    records = load_with_references(path)
    return Comparison(f"Unlearning report: {records[-1].result['title']}", records, [], None)
