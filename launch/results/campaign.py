"""The report of a campaign: from whatever runs succeeded, naming those that did not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.compose import job_from_dict
from dlfd_dist.config import METHOD_CONFIGS, AuditConfig, ForgetConfig, JobConfig
from dlfd_dist.run_dir import RunDir, exclusively

from ..execute.journal import Ledger
from ..execute.states import planned_runs, run_states
from ..plan.runs import CampaignRun, Planned, read_plan
from .audit import rows_of, write_audit
from .compare import COMPARE_LOCK, Ran, write_results
from .report import run_report
from .tuning import chosen

REPORT_WAIT_S = 600.0
"""How long one report job waits for another, of an earlier submission, to end."""


def write_campaign_report(campaign: Path) -> int:
    """Write the page and, for a comparison, its tables; exit status 1 when runs are missing."""
    with exclusively(campaign / COMPARE_LOCK, "report of the campaign", wait_s=REPORT_WAIT_S):
        return _write_report(campaign)


def _write_report(campaign: Path) -> int:
    ledger = Ledger(campaign)
    runs = planned_runs(campaign, ledger)
    statuses = run_states(campaign)
    done = {s.label: Path(s.directory or "") for s in statuses if s.state == "finished"}
    failures = {s.label: f"{s.state}. {s.cause}".strip() for s in statuses if s.label not in done}
    trials = {run.label for run in runs if run.role == "trial"}
    for label, why in failures.items():
        print(f"dlfd: not finished: {label}: {why}", file=sys.stderr)
    if not done:
        print("dlfd: no run of the campaign has finished, so there is no report.", file=sys.stderr)
        return 1
    plan, last = read_plan(campaign / "plans" / _last_plan(ledger))
    if plan["verb"] == "audit":
        _write_audit(campaign, plan["later"], last, done)
    elif "contrasts" in plan["later"]:
        _write_comparison(campaign, plan["later"], runs, done, failures)
    else:
        paths = [str(path) for path in done.values()]
        run_report(paths, out=str(campaign / "report.html"), dry_run=False, as_json=False)
    # A trial that failed has lost; the others chose.
    return 1 if failures.keys() - trials else 0


def _last_plan(ledger: Ledger) -> str:
    """Return the name of the plan of the last submission."""
    return [event["plan"] for event in ledger.events() if event["event"] == "planned"][-1]


def _write_audit(
    campaign: Path, later: Mapping[str, Any], runs: Sequence[CampaignRun], done: dict[str, Path]
) -> None:
    first = job_from_dict(runs[0].config)
    # The trained models come first, then the methods, as in `dlfd audit`.
    wanted = [_planned(run) for run in sorted(runs, key=lambda run: run.role == "method")]
    wanted[0] = replace(wanted[0], config=first)
    audit = AuditConfig(**later["audit"])
    write_audit(campaign, later["kind"], audit, wanted, done, rows_of(first))


def _write_comparison(
    campaign: Path, later: Mapping[str, Any], runs: Sequence[CampaignRun], done: dict[str, Path],
    failures: dict[str, str],
) -> None:  # fmt: skip
    title = json.loads(RunDir(next(iter(done.values()))).result.read_text("utf-8"))["title"]
    # Of two that are called the same, the one asked for last.
    wanted = {run.label: _planned(run) for run in runs if not (run.tuning or run.role == "trial")}
    tuning = chosen(campaign, later["tuning"], runs)
    ran = Ran(list(wanted.values()), done, failures, tuning, title, later["contrasts"])
    write_results(campaign, ran, "Comparison")


def _planned(run: CampaignRun) -> Planned:
    """Return a run with what a table row is made of; reading all settings of a run takes 40 ms."""
    config = JobConfig(seed=run.config["seed"])
    if run.role == "method":
        name = run.config["method"]["name"]
        method = replace(METHOD_CONFIGS[name](), name=name)
        forget = ForgetConfig(fraction=0.5)
        config = replace(config, verb="unlearn", checkpoint="-", forget=forget, method=method)
    return Planned(run.label, run.role, run.train_seed or 0, config, run.variant, run.draw)
