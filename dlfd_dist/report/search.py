"""The page of a search; reads results.json and the run directories of the trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from .. import __version__
from ..run_dir import RunDir, read_events, write_text
from . import search_figures as figures
from .png import uri_of

Draw = Callable[[bool], Figure]


def write_search_report(out: Path) -> Path:
    """Write report.html into the directory of a search that has results; return it."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    page = out / "report.html"
    write_text(page, _render(_context(results, out)))
    return page


def _curves(results: Mapping[str, Any], out: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the probes of every trial that has a run directory."""
    curves = {}
    for row in results["rows"]:
        if row["run_dir"]:
            events = read_events(RunDir(out / row["run_dir"]).metrics)
            curves[row["trial"]] = [e for e in events if e["event"] == "probe"]
    return curves


def _plans(results: Mapping[str, Any], out: Path) -> list[tuple[str, str, Draw]]:
    """Return title, caption and drawing of each figure that the trials have anything to show in."""
    curves = _curves(results, out)
    plans: list[tuple[str, str, Draw]] = []
    if any(curves.values()):
        plans.append((
            "Trials over their steps",
            "Every probe of every trial. A cross marks where the scheduler stopped one.",
            lambda narrow: figures.trial_curves(results, curves, narrow=narrow),
        ))  # fmt: skip
    if any(row["state"] == "finished" for row in results["rows"]):
        plans.append((
            "Accuracy against forgetting",
            "Finished trials on val; bars are one standard error of the attack.",
            lambda narrow: figures.pareto_front(results, narrow=narrow),
        ))  # fmt: skip
        plans.append((
            "Settings of the finished trials",
            "A line is a trial; each setting is scaled to the range that was tried.",
            lambda narrow: figures.parallel_coordinates(results, narrow=narrow),
        ))  # fmt: skip
    if results["importance"]:
        plans.append((
            "What matters",
            "Importance of each setting for the objective (fANOVA over the trials). With few "
            "trials it is a hint, not a finding.",
            lambda narrow: figures.importances(results, narrow=narrow),
        ))  # fmt: skip
    return plans


def _context(results: Mapping[str, Any], out: Path) -> dict[str, Any]:
    rows, order = results["rows"], 1 if results["mode"] == "min" else -1
    known = [row for row in rows if row["objective"] is not None]
    known.sort(key=lambda row: (row["state"] != "finished", order * row["objective"]))
    best = next((row for row in rows if row["trial"] == results["winner"]), None)
    drawn = [
        {"title": title, "caption": text, "wide": uri_of(draw(False)), "narrow": uri_of(draw(True))}
        for title, text, draw in _plans(results, out)
    ]
    return {
        **results,
        "shown": [*known, *(row for row in rows if row["objective"] is None)],
        "best": best,
        "states": dict(Counter(row["state"] for row in rows)),
        "figures": drawn,
        "version": __version__,
    }


def _render(context: Mapping[str, Any]) -> str:
    """Return the page; every value is escaped."""
    source = resources.files("dlfd_dist.report").joinpath("search.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = _short
    return environment.from_string(source).render(context)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
