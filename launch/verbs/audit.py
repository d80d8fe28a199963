"""dlfd audit ulira|klom: shadow models trained, made to forget, retrained, and told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dlfd_dist.config import to_dict
from dlfd_dist.data.loaders import DataReader
from dlfd_dist.jobs import prepare
from dlfd_dist.logs import setup_console
from dlfd_dist.report.audit import summary_lines

from ..dry_run import indented
from ..execute.here import num_workers, running
from ..plan.audit import Audit, audit_of
from ..plan.linked import audit_plan
from ..plan.runs import Plan
from ..results.audit import FILES, write_audit
from ..results.ended import Ended
from ..results.tuning import Choices
from .staged import check_configs, check_images, check_methods, show_missing, show_plan


def run_audit(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Run an audit and write audit.json, audit.csv and the page into run.dir."""
    audit = audit_of(words)
    plan = audit_plan(audit)
    check_configs("audit", audit.comparison, [run.config for run in plan.runs])
    if dry_run:
        _show_plan(audit, plan, as_json=as_json)
        return 0
    setup_console()
    ended = _carry_out(audit, plan)
    result = write_audit(ended)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show_missing(result["missing"], ended.failures)
        print(*summary_lines(result), f"report: {audit.out / 'report.html'}", sep="\n")
    return 1 if result["missing"] else 0


def _carry_out(audit: Audit, plan: Plan) -> Ended:
    first, reader = plan.runs[0], DataReader()
    data = prepare(first.config, first.config.runtime.world_size, reader).data
    check_methods(audit.comparison, first, data)
    check_images([run for run in plan.runs if run.role == "method"], reader.rows)
    request, workers = audit.comparison.configs[0], audit.settings.workers
    with running(plan, "an audit", request, reader.rows, workers) as runs:
        done = runs.carry_out(Choices(plan).ready)
    return Ended(plan, plan.runs, done, runs.failures)


def _show_plan(audit: Audit, plan: Plan, *, as_json: bool) -> None:
    workers = num_workers(audit.first, audit.settings.workers)
    labels = [run.label for run in plan.runs]
    lines = [
        f"# audit: {len(labels)} runs under {audit.out / 'runs'}, {workers} at a time, those "
        "finished before are reused",
        f"# {_forgotten(audit)}",
        *indented(labels),
    ]
    values = {
        "audit": to_dict(audit.settings), "kind": audit.kind, "runs": labels, "workers": workers,
    }  # fmt: skip
    show_plan(audit.comparison, plan.runs[0], values, lines, FILES, as_json=as_json)


def _forgotten(audit: Audit) -> str:
    if audit.draws:
        return f"every shadow model forgets {audit.first.forget.fraction:.0%} of the people, drawn"
    return "every shadow model forgets the same people, those of the request"
