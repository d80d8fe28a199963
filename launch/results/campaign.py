"""The report of a campaign, from the runs that succeeded; the others are named as missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlfd_dist.run_dir import exclusively

from ..execute.journal import Ledger
from ..execute.states import planned_runs, run_states
from ..plan.runs import read_plan
from .audit import write_audit
from .compare import COMPARE_LOCK, write_comparison
from .ended import Ended
from .report import run_report
from .tuning import choices_of

REPORT_WAIT_S = 600.0
"""How long one report job waits for another, of an earlier submission, to end."""


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
    WRITERS[plan.finisher](Ended(plan, runs, done, failures, choices_of(campaign, runs)))
    # A trial that failed has lost; the others chose.
    return 1 if failures.keys() - {run.label for run in runs if run.role == "trial"} else 0


def _write_page(ended: Ended) -> None:
    page = str(ended.plan.path / "report.html")
    paths = [str(path) for path in ended.done.values()]
    run_report(paths, out=page, dry_run=False, as_json=False)


WRITERS: dict[str, Callable[[Ended], Any]] = {
    "audit": write_audit, "comparison": write_comparison, "page": _write_page,
}  # fmt: skip
"""What writes the report, by the finisher that a plan names."""
