"""dlfd report: a page for runs or comparisons that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.report.card import NAME as MODEL_CARD
from dlfd_dist.report.card import model_card
from dlfd_dist.report.html import write_report
from dlfd_dist.report.records import (
    Comparison,
    RunRecord,
    load_with_references,
    read_comparison,
)
from dlfd_dist.report.summary import Findings, findings_of, summarise
from dlfd_dist.report.tables import (
    Row,
    csv_table,
    head_line,
    latex_table,
    lines_below,
    markdown_table,
    text_grid,
    text_table,
)
from dlfd_dist.run_dir import write_text
from dlfd_dist.terminal import print_table

from ..dry_run import dry_run_text, indented

PAGES = (".html", ".htm")
Table = Callable[[], str]


def run_report(words: Sequence[str], *, out: str | None, dry_run: bool, as_json: bool) -> int:
    """Write a page from run directories; a comparison directory stands for all its runs."""
    if not words:
        raise ConfigError("Nothing to report: give one or more run directories.")
    runs = _read([Path(word) for word in words])
    page = Path(out) if out else Path(words[0]) / "report.html"
    rows, findings = summarise(runs.records), findings_of(runs.records, runs.contrasts)
    table = _table(page, runs, tables_of(runs, rows, findings))
    if dry_run:
        paths = [str(record.path) for record in runs.records]
        figures = [f"{page.parent / page.stem}_figures/"] if table is None else []
        lines = ["# runs that would be reported", *indented(paths)]
        print(dry_run_text({"runs": paths}, lines, [str(page), *figures], as_json=as_json))
        return 0
    try:
        if table is None:
            write_page(runs, page)
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
        show_summary(rows, runs.tuning, findings)
        print(f"report: {page}")
    return 0


def show_summary(rows: Sequence[Row], tuning: dict[str, Any] | None, findings: Findings) -> None:
    """Print the table of a summary; on a terminal what stands below it is not in the table."""
    heads, *cells = text_grid(rows)
    below = lines_below(rows, tuning, findings)
    plain = text_table(rows, tuning, findings)
    print_table(cells, heads=heads, plain=plain, title=head_line(findings), below=below)


def write_page(runs: Comparison, page: Path) -> None:
    write_report(
        runs.records, page, title=runs.title, missing=runs.missing, tuning=runs.tuning,
        contrasts=runs.contrasts,
    )  # fmt: skip


def tables_of(runs: Comparison, rows: Sequence[Row], findings: Findings) -> dict[str, Table]:
    """Return what makes the table of runs, by the ending of its file."""
    return {
        ".csv": lambda: csv_table(rows, findings),
        ".md": lambda: markdown_table(rows, runs.tuning, runs.missing, findings),
        ".tex": lambda: latex_table(rows, runs.tuning, runs.missing, findings),
        ".txt": lambda: text_table(rows, runs.tuning, findings),
    }


def _table(out: Path, runs: Comparison, tables: Mapping[str, Table]) -> str | None:
    """Return the table or model card that the name of a file asks for; None: the page.

    Raises ConfigError where nothing is written to files of such a name.
    """
    ending = out.suffix.lower()
    if ending in PAGES:
        return None
    if out.name == MODEL_CARD:
        return model_card(runs.records)
    if ending not in tables:
        raise ConfigError(
            f"--out {out} {f'ends in {ending}' if ending else 'has no ending'}: give PAGE.html, or "
            f"one of {', '.join(tables)} for the table alone, or {MODEL_CARD} for a model card."
        )
    return tables[ending]()


def _read(paths: Sequence[Path]) -> Comparison:
    """Return the runs of all paths as one comparison; each run once, however often named."""
    records: dict[str, RunRecord] = {}
    parts = [_read_part(path) for path in paths]
    for part in parts:
        records |= {str(record.path.resolve()): record for record in part.records}
    # What several comparisons tuned, each on models of its own, makes no common record.
    alone = len(parts) == 1
    tuning, contrasts = (parts[0].tuning, parts[0].contrasts) if alone else (None, None)
    missing = [name for part in parts for name in part.missing]
    return Comparison(parts[0].title, list(records.values()), missing, tuning, contrasts)


def _read_part(path: Path) -> Comparison:
    if (path / "comparison.json").is_file():
        return read_comparison(path)
    records = load_with_references(path)
    return Comparison(f"Unlearning report: {records[-1].result['title']}", records, [], None)
