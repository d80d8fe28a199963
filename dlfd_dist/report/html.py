"""The report page: one HTML file that needs nothing else, and its figures as PNG beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader

from .. import __version__
from ..errors import RunDirError
from ..plain import bands, dotted
from ..run_dir import replacing, write_text
from . import pictures
from .exposure import exposure_of
from .groups import group_section
from .officer import LIMITS, guards, what_was_done
from .page_tables import MAIN_COLUMNS, details, heads, measurements
from .plan import FigurePlan, plan_figures
from .png import data_uri, png_of
from .records import ORIGINAL, RETRAINED, RunRecord, of_label
from .style import role_styles
from .summary import Findings, findings_of, labels_in_order, summarise
from .tables import (
    ALIKE,
    LEFT_AS_IS,
    ONLY_CONFIDENCE,
    contrast_lines,
    footnotes,
    head_line,
    notes,
)
from .tuning import DASH, Tuning, number_text, tuned_rows
from .verdict import Row, alone, judge, row_of, unlearned_row

# Settings that hold paths or the request: they may name a person or a place on somebody's disk.
_PRIVATE = (
    "run", "checkpoint", "reference", "forget.request", "data.root", "data.cache_dir",
    "model.folder",
)  # fmt: skip
_WEIGHTS = ("checkpoint", "reference")
_SECTIONS_BY_VERB = {
    "train": ("data", "model", "forget", "train", "metrics", "runtime"),
    "unlearn": (
        "data", "model", "forget", "method", "synthesis", "ot", "train_mode", "metrics", "runtime",
    ),
    "evaluate": ("data", "model", "forget", "metrics", "runtime"),
}  # fmt: skip


def _draw(plan: FigurePlan) -> tuple[bytes, dict[str, Any]]:
    """Return the wide PNG of a figure, and what the page shows of it."""
    fig = plan.draw(False)
    png, narrow = png_of(fig), png_of(plan.draw(True))
    width = round(fig.get_figwidth() * 96)
    uris = {"wide": data_uri(png), "narrow": data_uri(narrow), "width": width}
    return png, {"title": plan.title, "caption": plan.caption, **uris}


def _write_figures(folder: Path, images: dict[str, bytes]) -> list[Path]:
    """Write the PNG files and drop those of an earlier report, which may not be shown any more."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in images]
    for path, png in zip(paths, images.values(), strict=True):
        with replacing(path) as partial:
            partial.write_bytes(png)
    for stale in set(folder.glob("*.png")) - set(paths):
        stale.unlink()
    return paths


def _tiles(row: Row | None, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the three headline numbers, each with a bar for Original, Retrained and the method."""
    if row is None or row["forgetting_score"] is None:
        return []
    trio = [r for r in (row_of(rows, ORIGINAL), row_of(rows, RETRAINED), row) if r is not None]
    styles = role_styles([r["method"] for r in trio])
    guarded = guards(row, row_of(rows, ORIGINAL))
    wanted = (
        ("Forgetting score", "forgetting_score", "lower is better; 0 is a coin flip", 0.5),
        ("Test accuracy", "test_accuracy", "higher is better", 1.0),
        ("NoMUS", "nomus", "higher is better; weighs both", 1.0),
    )
    return [
        {
            "title": title,
            "hint": hint,
            "value": number_text(row[metric], ".3f"),
            "guards": guarded[metric],
            "bars": [
                {
                    "method": r["method"],
                    "text": f"{r[metric]:.3f}",
                    "color": styles[r["method"]][0],
                    "percent": f"{100 * min(1.0, r[metric] / full):.1f}",
                }
                for r in trio
                if r[metric] is not None
            ],
        }
        for title, metric, hint, full in wanted
    ]


def _settings(record: RunRecord) -> list[tuple[str, str]]:
    sections = _SECTIONS_BY_VERB[record.config["verb"]]
    chosen = {name: record.config[name] for name in sections if name in record.config}
    return [
        (name, value if isinstance(value, str) else json.dumps(value))
        for name, value in dotted(chosen).items()
        if name not in _PRIVATE
    ]


def _shared_inputs(inputs: Sequence[dict[str, str]]) -> dict[str, str]:
    """Return the inputs that are the same in every run."""
    first, *others = inputs
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def _inputs(records: Sequence[RunRecord]) -> list[dict[str, str]]:
    """Return what each run read, as the page shows it.

    Of weights, which name nobody, the first 16 digits of SHA-256; of everything else a letter for
    each that differs. A digest of data or request would give the people away to whoever has the
    data: there are few enough to try them all.
    """
    different: dict[str, list[str]] = {}
    shown = []
    for record in records:
        marks = {}
        for name, digest in sorted(record.inputs.items()):
            if name in _WEIGHTS:
                marks[name] = str(digest)[:16]
                continue
            known = different.setdefault(name, [])
            known += [] if digest in known else [digest]
            marks[name] = _letters(known.index(digest))
        shown.append(marks)
    return shown


def _letters(number: int) -> str:
    """Return A to Z, then AA and so on.

    >>> _letters(0), _letters(25), _letters(26)
    ('A', 'Z', 'AA')
    """
    more, last = divmod(number, 26)
    return (_letters(more - 1) if more else "") + chr(ord("A") + last)


def _runs(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    labels = labels_in_order(records)
    styles = role_styles(labels)
    ordered = [record for label in labels for record in of_label(records, label)]
    inputs = _inputs(ordered)
    shared = _shared_inputs(inputs)
    return [
        {
            "label": r.label,
            "color": styles[r.label][0],
            "seed": r.seed,
            "world_size": r.result.get("world_size"),
            "selection": r.result.get("selection") or DASH,
            "inputs": [(k, v) for k, v in read.items() if k not in shared],
        }
        for r, read in zip(ordered, inputs, strict=True)
    ]


def _left_out(records: Sequence[RunRecord]) -> list[str]:
    kept = [record for record in records if record.synthesised() is not None]
    if kept and not any(pictures.may_show_faces(record) for record in kept):
        return ["Images are not shown: the data set does not allow it."]
    return []


def _context(
    records: Sequence[RunRecord], rows: Sequence[Row], tuning: Tuning | None, findings: Findings
) -> dict[str, Any]:
    row = unlearned_row(rows, records)
    _, *contrasts = contrast_lines(findings) or [""]
    last = records[-1] if row is None else of_label(records, row["method"])[0]
    return {
        "verdict": judge(rows, records, findings.gate),
        "tiles": _tiles(row, rows),
        "heads": heads(rows, row),
        "gate": head_line(findings),
        "contrasts": contrasts,
        "alone": alone(rows, records),
        "main_metrics": measurements(rows, MAIN_COLUMNS),
        "details": details(rows),
        "done": [] if row is None else what_was_done(row, records),
        "certified": (last.path / "certificate.json").is_file(),
        "exposure": None if row is None else exposure_of(records, last),
        "groups": group_section(records),
        "footnotes": footnotes(rows),
        "marks": {"left": LEFT_AS_IS, "paler": ONLY_CONFIDENCE, "alike": ALIKE},
        "notes": notes(rows, tuning),
        "tuned": tuned_rows(tuning),
        "runs": _runs(records),
        "shared_inputs": list(_shared_inputs(_inputs(records)).items()),
        "settings": _settings(last),
        "settings_of": f"{last.label}, seed {last.seed}",
        "data_title": last.result.get("title"),
        "num_images": bands(last.result.get("num_images", {})),
        "request": last.request,
        "leaks": bands(last.result.get("leaks")),
        "relearned": last.result.get("relearn"),
        "resurfacing": last.result.get("resurfacing"),
        "credits": sorted({r.result["credit"] for r in records if r.result.get("credit")}),
        "synthetic": any(record.result.get("synthetic") for record in records),
        "left_out": _left_out(records),
        "limits": LIMITS,
        "version": __version__,
    }


def render(context: dict[str, Any]) -> str:
    """Return the page; every value is escaped."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(context)


def _template(name: str) -> str:
    return resources.files("dlfd_dist.report").joinpath(name).read_text(encoding="utf-8")


def write_report(
    records: Sequence[RunRecord],
    out: Path,
    *,
    title: str,
    missing: Sequence[str] = (),
    tuning: Tuning | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the page to `out` and its figures to `<out stem>_figures/`; return all, the page first.

    Parameters
    ----------
    missing : names of runs that the page should have covered
    tuning : how the settings of the methods were chosen (`Comparison.tuning`), None if not tuned
    contrasts : those named before the runs (`Comparison.contrasts`), None for the defaults
    """
    if not records:
        raise RunDirError(f"There is no finished run to write {out} about.")
    rows = summarise(records)
    images: dict[str, bytes] = {}
    shown = []
    for plan in plan_figures(records, rows):
        images[plan.name], entry = _draw(plan)
        shown.append(entry)
    context = _context(records, rows, tuning, findings_of(records, contrasts))
    page = render({**context, "title": title, "missing": list(missing), "figures": shown})
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = _write_figures(out.parent / f"{out.stem}_figures", images)
    write_text(out, page)
    return [out, *paths]
