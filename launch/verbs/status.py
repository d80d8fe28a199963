"""dlfd status, cancel and retry."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dlfd_dist.errors import INTERRUPTED, ConfigError
from dlfd_dist.plain import counted, steer
from dlfd_dist.runtime.accounting import Usage, total
from dlfd_dist.terminal import is_live, print_table

from ..execute import slurm
from ..execute.background import cancel as cancel_local
from ..execute.code import difference
from ..execute.journal import Ledger
from ..execute.places import job_folder
from ..execute.process import is_local
from ..execute.states import (
    ENDED_BADLY,
    UNDER_WAY,
    RunStatus,
    campaigns,
    find_campaign,
    planned_runs,
    run_states,
)
from ..execute.usage import usage_of
from ..plan.runs import Plan, read_plan
from .shown import show_submission
from .submit import submit

WATCH_FIRST_S, WATCH_LAST_S = 2.0, 60.0
CLEAR = "\x1b[H\x1b[2J"


def run_status(words: Sequence[str], *, watch: bool, as_json: bool) -> int:
    """Show one campaign, or every one under runs/; exit status 1 when a run ended badly."""
    paths = [find_campaign(word) for word in words] or campaigns()
    if not paths:
        raise ConfigError("There is no campaign under runs/: give the directory of one.")
    try:
        statuses = _watch(paths, words, as_json=as_json) if watch else _look(paths, words, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1 if _any(statuses, ENDED_BADLY) else 0


def _any(campaigns: Mapping[Path, Sequence[RunStatus]], states: Sequence[str]) -> bool:
    """Return whether a run of any campaign is in one of the states."""
    return any(status.state in states for runs in campaigns.values() for status in runs)


def _look(
    paths: Sequence[Path], words: Sequence[str], as_json: bool
) -> dict[Path, list[RunStatus]]:
    statuses = {path: run_states(path) for path in paths}
    _show(statuses, detailed=bool(words), as_json=as_json)
    return statuses


def _watch(
    paths: Sequence[Path], words: Sequence[str], *, as_json: bool
) -> dict[Path, list[RunStatus]]:
    """Show the runs until none is under way, ever more seldom: each look asks the scheduler."""
    delay = WATCH_FIRST_S
    while True:
        if is_live(sys.stdout) and not as_json:
            steer(CLEAR, sys.stdout)
        statuses = _look(paths, words, as_json)
        if not _any(statuses, UNDER_WAY):
            return statuses
        time.sleep(delay)
        delay = min(WATCH_LAST_S, delay * 1.5)


def _show(statuses_of: dict[Path, list[RunStatus]], *, detailed: bool, as_json: bool) -> None:
    if as_json:
        shown = [_as_dict(path, statuses) for path, statuses in statuses_of.items()]
        print(json.dumps(shown[0] if detailed and len(shown) == 1 else shown, indent=2))
        return
    for path, statuses in statuses_of.items():
        _show_head(path, statuses)
        if detailed:
            _show_runs(statuses)
    sys.stdout.flush()


def _as_dict(path: Path, statuses: Sequence[RunStatus]) -> dict[str, Any]:
    page, used = path / "report.html", used_by_jobs(path, statuses)
    num_runs = Counter(status.job_id for status in statuses)
    runs = [
        asdict(s)
        | {"usage": asdict(used.get(s.job_id, Usage())) if num_runs[s.job_id] == 1 else None}
        for s in statuses
    ]
    return {
        "campaign": str(path), **summary(statuses), "usage": asdict(total(used.values())),
        "runs": runs,
        "report": str(page) if page.is_file() else None, "code": code_note(path),
        "jobs": str(job_folder(path)),
    }  # fmt: skip


def summary(statuses: Sequence[RunStatus]) -> dict[str, Any]:
    """Return how many runs are in which state, and device hours as estimated and as used."""
    used = [s for s in statuses if s.device_seconds is not None]
    energies = [s.energy_joules for s in statuses if s.energy_joules is not None]
    return {
        "counts": Counter(status.state for status in statuses),
        "estimated_device_hours": sum(s.estimated_seconds for s in statuses) / 3600,
        "finished_estimated_device_hours": sum(s.estimated_seconds for s in used) / 3600,
        "finished_device_hours": sum(s.device_seconds or 0.0 for s in used) / 3600,
        "device_energy_joules": sum(energies) if energies else None,
    }


def used_by_jobs(path: Path, statuses: Sequence[RunStatus]) -> dict[str, Usage]:
    """Return what the jobs that have ended used, by id, as far as accounting knows them."""
    under_way = {status.job_id for status in statuses if status.state in UNDER_WAY}
    job_ids = [job_id for job_id in Ledger(path).job_ids() if job_id not in under_way]
    return usage_of(path, job_ids)


def code_note(path: Path) -> str | None:
    """Return a sentence when the code of the last submission is not the code of now."""
    planned = [e for e in Ledger(path).events() if e["event"] == "planned"]
    return difference(planned[-1]["code"]) if planned else None


def _show_head(path: Path, statuses: Sequence[RunStatus]) -> None:
    totals = summary(statuses)
    counts = ", ".join(f"{number} {state}" for state, number in sorted(totals["counts"].items()))
    print(f"{path}: {counted(len(statuses), 'run')}: {counts}")
    if totals["counts"]["finished"]:
        print(
            f"  device hours of what is finished: {totals['finished_device_hours']:.3f}, "
            f"estimated {totals['finished_estimated_device_hours']:.3f}"
        )
    _show_usage(path, statuses, totals["device_energy_joules"])
    note = code_note(path)
    if note:
        print(f"  {note}")
    if job_folder(path).is_dir():
        print(f"  jobs (submitit): {job_folder(path)}")
    if (path / "report.html").is_file():
        print(f"  report: {path / 'report.html'}")


def _show_usage(path: Path, statuses: Sequence[RunStatus], by_devices: float | None) -> None:
    """Print what was measured of energy and memory."""
    used = total(used_by_jobs(path, statuses).values())
    texts = [
        f"{value / divisor:.2f} {unit}"
        for value, divisor, unit in (
            (used.energy_joules, 3.6e6, "kWh by the nodes"),
            (by_devices, 3.6e6, "kWh by the devices"),
            (used.cpu_seconds, 3600, "core hours"),
            (used.max_rss_mb, 1000, "GB of memory in the largest process"),
        )
        if value is not None
    ]
    if texts:
        print(f"  used: {', '.join(texts)}")


def _show_runs(statuses: Sequence[RunStatus]) -> None:
    """Print a row for each run; on a terminal, what went wrong stands below the table."""
    rows, lines, below = [], [], []
    for status in statuses:
        again = f", started again {counted(status.restarts, 'time')}" if status.restarts else ""
        name, why = f"{status.label}{again}", list(_reasons(status))
        rows.append((status.state, status.job_id, name))
        lines += [f"  {status.state:10} {status.job_id:>10} {name}", *why]
        below += [f"  {status.label}:", *why] if why else []
    print_table(rows, heads=("state", "job", "run"), plain="\n".join(lines), below=below)


def _reasons(status: RunStatus) -> Iterator[str]:
    """Yield why a run is in its state, the log lines that matter and where its log is."""
    if status.cause:
        yield f"{'':14}{status.cause}"
    if status.state == "failed":
        yield from (f"{'':16}| {line[:160]}" for line in status.lines)
        if status.log:
            yield f"{'':14}its log: {status.log}"


def run_cancel(words: Sequence[str]) -> int:
    """Cancel a campaign, or one run of it given by its directory, key or label."""
    if len(words) != 1:
        raise ConfigError("Give one campaign or one run: dlfd cancel CAMPAIGN|RUN.")
    campaign, wanted = find_run(words[0])
    statuses = [s for s in run_states(campaign) if s.state in UNDER_WAY]
    chosen = [s for s in statuses if wanted is None or s.key == wanted]
    ledger = Ledger(campaign)
    ids = [s.job_id for s in chosen]
    if wanted is not None:
        shared = [s.label for s in statuses if s.job_id in ids and s.key != wanted]
        if shared:
            raise ConfigError(
                f"{chosen[0].label} shares its job with {', '.join(shared)}: cancel the campaign, "
                "or submit with cluster.pack=1 where runs are to be cancelled one by one."
            )
    elif ledger.report_job():
        ids.append(str(ledger.report_job()))
    with ledger.locked():
        for job_id in filter(is_local, dict.fromkeys(ids)):
            cancel_local(campaign, job_id)
        slurm.scancel([job_id for job_id in dict.fromkeys(ids) if not is_local(job_id)])
        ledger.append("cancelled", keys=[s.key for s in chosen], job_ids=ids)
    labels = ", ".join(s.label for s in chosen) or "none was queued"
    print(f"cancelled {counted(len(chosen), 'run')}: {labels}")
    return 0


def find_run(word: str) -> tuple[Path, str | None]:
    """Return the campaign that a word names, and the key of the run where it names one.

    A run is its directory, or CAMPAIGN/LABEL, or CAMPAIGN/KEY.
    """
    path = Path(word)
    for parent in path.absolute().parents:
        if not (parent / "ledger.jsonl").is_file():
            continue
        if (path / "ledger.jsonl").is_file():
            break
        for status in run_states(parent):
            if path.name in (status.key, status.label) or (
                status.directory and Path(status.directory) == path.absolute()
            ):
                return parent, status.key
        raise ConfigError(f"{word} is no run of the campaign {parent}: 'dlfd status' lists them.")
    return find_campaign(word), None


def run_retry(words: Sequence[str], *, failed: bool, as_json: bool) -> int:
    """Submit the runs of a campaign that ended badly, and what waits for them, again."""
    if len(words) != 1 or not failed:
        raise ConfigError("Say what is tried again: dlfd retry CAMPAIGN --failed.")
    path = find_campaign(words[0])
    if not any(s.state in ENDED_BADLY for s in run_states(path)):
        print("nothing to retry: no run has failed")
        return 0
    show_submission(submit(_stored(path)), as_json=as_json)
    return 0


def _stored(path: Path) -> Plan:
    """Return the last plan of a campaign, with every run that was ever asked for."""
    ledger = Ledger(path)
    last = read_plan(path, ledger.last_planned()["plan"])
    directories = {s.key: s.directory for s in run_states(path) if s.directory}
    return replace(last, runs=planned_runs(path, ledger), directories=directories)
