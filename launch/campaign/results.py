"""The report of a campaign: from whatever runs succeeded, naming those that did not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlfd_dist.config import METHOD_CONFIGS, ForgetConfig, JobConfig
from dlfd_dist.run_dir import RunDir, exclusively

from ..audit.audit import rows_of
from ..audit.planning import plan_audit, trainings, unlearnings
from ..audit.results import write_audit
from ..comparison.compare import COMPARE_LOCK, Ran, write_results
from ..comparison.contrasts import named_contrasts
from ..comparison.planning import Planned, make_plan
from ..report import run_report
from .ledger import Ledger
from .plan import CampaignRun
from .states import planned_runs, run_states
from .tuning import chosen

REPORT_WAIT_S = 600.0
"""How long one report job waits for another, of an earlier submission, to end."""
ROLES = ("original", "retrained", "trial", "method")


def write_campaign_report(campaign: Path) -> int:
    """Write the page and, for a comparison, its tables; exit status 1 when runs are missing."""
    with exclusively(campaign / COMPARE_LOCK, "report of the campaign", wait_s=REPORT_WAIT_S):
        return _write_report(campaign)


def _write_report(campaign: Path) -> int:
    ledger = Ledger(campaign)
    runs = planned_runs(campaign, ledger)
    if runs[0].config["verb"] == "search":
        from ..search.job import write_search

        return write_search(campaign)
    statuses = run_states(campaign)
    done = {s.label: Path(s.directory or "") for s in statuses if s.state == "finished"}
    failures = {s.label: f"{s.state}. {s.cause}".strip() for s in statuses if s.label not in done}
    trials = {run.label for run in runs if run.role == "trial"}
    for label, why in failures.items():
        print(f"dlfd: not finished: {label}: {why}", file=sys.stderr)
    if not done:
        print("dlfd: no run of the campaign has finished, so there is no report.", file=sys.stderr)
        return 1
    verb, *words = _asked(ledger)
    if verb == "audit":
        _write_audit(campaign, words, done)
    elif runs[0].role in ROLES:
        _write_comparison(campaign, words, runs, done, failures)
    else:
        paths = [str(path) for path in done.values()]
        run_report(paths, out=str(campaign / "report.html"), dry_run=False, as_json=False)
    # A trial that failed has lost; the others chose.
    return 1 if failures.keys() - trials else 0


def _asked(ledger: Ledger) -> list[str]:
    """Return the words of the last submission, its verb first."""
    return [event["words"] for event in ledger.events() if event["event"] == "planned"][-1]


def _write_audit(campaign: Path, words: Sequence[str], done: dict[str, Path]) -> None:
    plan = plan_audit(words)
    wanted = [*trainings(plan), *unlearnings(plan)]
    rows = rows_of(wanted[0].config)
    write_audit(campaign, plan.kind, plan.audit, wanted, done, rows)


def _write_comparison(
    campaign: Path, words: Sequence[str], runs: Sequence[CampaignRun], done: dict[str, Path],
    failures: dict[str, str],
) -> None:  # fmt: skip
    title = json.loads(RunDir(next(iter(done.values()))).result.read_text("utf-8"))["title"]
    # Of two that are called the same, the one asked for last.
    wanted = {run.label: _planned(run) for run in runs if not (run.tuning or run.role == "trial")}
    tuning = chosen(campaign, words, runs)
    contrasts = named_contrasts(make_plan(words))
    ran = Ran(list(wanted.values()), done, failures, tuning, title, contrasts)
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
