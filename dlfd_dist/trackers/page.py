"""The page of a finished run and its pictures, as `dlfd report RUN` writes them."""

from __future__ import annotations

from pathlib import Path

from ..config import JobConfig
from ..run_dir import RunDir
from .tracking import catch_up


def end_trackers(config: JobConfig, run_dir: RunDir) -> None:
    """Tell trackers the end of a finished run and its page, where a kill kept both from them."""
    catch_up(config, run_dir, lambda: write_page(run_dir))


def write_page(run_dir: RunDir) -> list[Path]:
    """Write report.html and its pictures into a run directory; return the page and the PNGs."""
    from ..report.html import write_report
    from ..report.records import load_with_references

    page = run_dir.path / "report.html"
    title = f"Unlearning report: {run_dir.read_result()['title']}"
    files = write_report(load_with_references(run_dir.path), page, title=title)
    return [path for path in files if path == page or path.suffix == ".png"]
