"""The page of a finished run and its pictures, as `dlfd report RUN` writes them."""

from __future__ import annotations

from pathlib import Path

from ..run_dir import RunDir


def write_page(run_dir: RunDir) -> list[Path]:
    """Write report.html and its pictures into a run directory; return the page and the PNGs."""
    from ..report.html import write_report
    from ..report.records import load_with_references

    page = run_dir.path / "report.html"
    title = f"Unlearning report: {run_dir.read_result()['title']}"
    files = write_report(load_with_references(run_dir.path), page, title=title)
    return [path for path in files if path == page or path.suffix == ".png"]
