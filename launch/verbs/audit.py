"""dlfd audit ulira|klom: shadow models trained, made to forget, retrained, and told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import DataReader
from dlfd_dist.jobs import prepare
from dlfd_dist.logs import setup_console
from dlfd_dist.report.audit import summary_lines

from ..dry_run import indented
from ..execute.here import num_workers, running
from ..plan.audit import Audit, audit_of, trainings, unlearnings
from ..plan.comparison import with_models
from ..plan.runs import Run
from ..results.audit import FILES, rows_of, write_audit
from .staged import check_configs, check_images, check_methods, show_missing, show_plan


def run_audit(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run an audit and write audit.json, audit.csv and the page into run.dir."""
    audit = audit_of(words)
    stages = trainings(audit), unlearnings(audit)
    wanted = [run for stage in stages for run in stage]
    check_configs("audit", audit.comparison, [run.config for run in wanted])
    if dry_run:
        _show_plan(audit, wanted, as_json=as_json)
        return 0
    setup_console()
    done, failures = _run(audit, *stages)
    rows = rows_of(wanted[0].config)
    result = write_audit(audit.out, audit.kind, audit.settings, wanted, done, rows)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show_missing(result["missing"], failures)
        print(*summary_lines(result), f"report: {audit.out / 'report.html'}", sep="\n")
    return 1 if result["missing"] else 0


def _run(
    audit: Audit, first: Sequence[Run], last: Sequence[Run]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Run the stages; return the finished runs and why the others failed, by label."""
    config, reader = first[0].config, DataReader()
    data = prepare(config, config.runtime.world_size, reader).data
    check_methods(audit.comparison, first[0], data)
    check_images(last, reader.rows)
    with running(
        "audit", audit.comparison, reader.rows, audit.settings.workers, total=len(first) + len(last)
    ) as runs:
        models = runs.models(first)
        return models | runs.run(with_models(last, models)), runs.failures


def _show_plan(audit: Audit, runs: Sequence[Run], *, as_json: bool) -> None:
    workers = num_workers(audit.first, audit.settings.workers)
    labels = [run.label for run in runs]
    lines = [
        f"# audit: {len(runs)} runs under {audit.out / 'runs'}, {workers} at a time, those "
        "finished before are reused",
        f"# {_forgotten(audit)}",
        *indented(labels),
    ]
    values = {
        "audit": to_dict(audit.settings), "kind": audit.kind, "runs": labels, "workers": workers,
    }  # fmt: skip
    show_plan(audit.comparison, runs[0], values, lines, FILES, as_json=as_json)


def _forgotten(audit: Audit) -> str:
    if audit.draws:
        return f"every shadow model forgets {audit.first.forget.fraction:.0%} of the people, drawn"
    return "every shadow model forgets the same people, those of the request"
