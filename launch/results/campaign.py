"""The report of a campaign, from the runs that succeeded; the others are named as missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dlfd_dist.config import AuditConfig
from dlfd_dist.run_dir import RunDir, exclusively

from ..execute.journal import Ledger
from ..execute.states import planned_runs, run_states
from ..plan.runs import Plan, Run, read_plan
from .audit import rows_of, write_audit
from .compare import COMPARE_LOCK, Outcome, write_results
from .report import run_report
from .tuning import chosen

REPORT_WAIT_S = 600.0
"""How long one report job waits for another, of an earlier submission, to end."""


@dataclass(frozen=True)
class Ended:
    """A campaign whose jobs have ended."""

    plan: Plan
    """The plan of the last submission."""
    runs: list[Run]
    """Every run that was ever asked for."""
    done: dict[str, Path]
    """The directories of the finished runs, by label."""
    failures: dict[str, str]
    """Why the others have no result, by label."""


def write_campaign_report(campaign: Path) -> int:
    """Write the page and, for a comparison, its tables; exit status 1 when runs are missing."""
    with exclusively(campaign / COMPARE_LOCK, "report of the campaign", wait_s=REPORT_WAIT_S):
        return _write_report(campaign)


def _write_report(campaign: Path) -> int:
    ledger = Ledger(campaign)
    runs, statuses = planned_runs(campaign, ledger), run_states(campaign)
    done = {s.label: Path(s.directory or "") for s in statuses if s.state == "finished"}
    failures = {s.label: f"{s.state}. {s.cause}".strip() for s in statuses if s.label not in done}
    for label, why in failures.items():
        print(f"dlfd: not finished: {label}: {why}", file=sys.stderr)
    if not done:
        print("dlfd: no run of the campaign has finished, so there is no report.", file=sys.stderr)
        return 1
    plan = read_plan(campaign, ledger.last_planned()["plan"])
    WRITERS[plan.finisher](Ended(plan, runs, done, failures))
    # A trial that failed has lost; the others chose.
    return 1 if failures.keys() - {run.label for run in runs if run.role == "trial"} else 0


def _write_audit(ended: Ended) -> None:
    plan = ended.plan
    # The trained models come first, then the methods, as in `dlfd audit`.
    wanted = sorted(plan.runs, key=lambda run: run.role == "method")
    kind, settings = plan.for_finisher["kind"], AuditConfig(**plan.for_finisher["audit"])
    write_audit(plan.path, kind, settings, wanted, ended.done, rows_of(wanted[0].config))


def _write_comparison(ended: Ended) -> None:
    plan, notes = ended.plan, ended.plan.for_finisher
    title = json.loads(RunDir(next(iter(ended.done.values()))).result.read_text("utf-8"))["title"]
    # Of two runs with one label, the run that was asked for last.
    wanted = {run.label: run for run in ended.runs if run.in_table}
    tuning = chosen(plan.path, notes["tuning"], ended.runs)
    outcome = Outcome(
        list(wanted.values()), ended.done, ended.failures, tuning, title, notes["contrasts"]
    )
    write_results(plan.path, outcome, "Comparison")


def _write_page(ended: Ended) -> None:
    page = str(ended.plan.path / "report.html")
    paths = [str(path) for path in ended.done.values()]
    run_report(paths, out=page, dry_run=False, as_json=False)


WRITERS: dict[str, Callable[[Ended], None]] = {
    "audit": _write_audit, "comparison": _write_comparison, "page": _write_page,
}  # fmt: skip
"""What writes the report, by the finisher that a plan names."""
