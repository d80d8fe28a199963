"""The status of every run of a campaign, from squeue, sacct and run directories.

A run is finished when it has a result, and in no other case. NODE_FAIL, PREEMPTED and REQUEUED are
not final: SLURM starts such a job again under the same id, and sacct is some time behind squeue.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dlfd_dist.errors import STOPPED, ConfigError
from dlfd_dist.run_dir import RunDir, write_json

from ..plan.runs import Run, read_plan
from . import slurm
from .background import is_alive
from .causes import cause
from .journal import NOWHERE, Attempts, Ledger, Placement, read_attempts
from .places import job_log, rank_logs
from .process import is_local
from .slurm import STARTED, JobState

SACCT_EVERY_S = 5.0
"""Answers of sacct younger than this are used again, by other commands too."""
AGAIN_WITHIN_S = 180.0
"""How long after its end a job that SLURM should start again may be missing from squeue."""
SILENT_S = 600.0
"""Without a scheduler to ask: a run whose logs are silent for so long is not called running."""

# SLURM's words -> ours, for a job that squeue lists.
QUEUED = {
    "PENDING": "queued", "CONFIGURING": "queued", "RUNNING": "running", "COMPLETING": "running",
    "SUSPENDED": "queued", "STOPPED": "queued", "SIGNALING": "running", "STAGE_OUT": "running",
    "REQUEUED": "restarting", "REQUEUE_FED": "restarting", "REQUEUE_HOLD": "held",
    "SPECIAL_EXIT": "held", "RESIZING": "running", "PREEMPTED": "restarting",
    "NODE_FAIL": "restarting", "RESV_DEL_HOLD": "held",
}  # fmt: skip
COMES_BACK = ("NODE_FAIL", "PREEMPTED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "BOOT_FAIL")
UNDER_WAY = ("queued", "waiting", "running", "restarting", "held")
ENDED_BADLY = ("failed", "cancelled", "blocked", "lost")


@dataclass(frozen=True)
class RunStatus:
    """One run as the user sees it."""

    key: str
    label: str
    state: str
    """finished, running, queued, waiting, restarting, held, failed, cancelled, blocked, lost,
    unknown or planned"""
    job_id: str = ""
    directory: str | None = None
    restarts: int = 0
    cause: str = ""
    lines: tuple[str, ...] = ()
    """The log lines that matter."""
    log: str | None = None
    estimated_seconds: float = 0.0
    device_seconds: float | None = None
    energy_joules: float | None = None
    """What its devices used, as NVML counts it."""


def live(ledger: Ledger) -> dict[str, Placement]:
    """Return the runs of a campaign that a scheduler still has."""
    placements = ledger.placements()
    local = {k: p for k, p in placements.items() if is_local(p.job_id)}
    alive = {key: place for key, place in local.items() if is_alive(ledger.path, place.job_id)}
    if len(local) < len(placements):
        queue, cancelled = slurm.squeue(), ledger.cancelled()
        alive |= {
            key: place
            for key, place in placements.items()
            if place.job_id in queue
            and not _never_starts(queue[place.job_id], cancelled=place.job_id in cancelled)
        }
    return alive


def _never_starts(job: JobState, *, cancelled: bool) -> bool:
    """Whether a job that squeue lists will not run; for some seconds it lists cancelled jobs."""
    if job.reason == "DependencyNeverSatisfied":
        return True
    return cancelled and QUEUED.get(job.state) != "running"


def find_campaign(word: str) -> Path:
    """Return the directory of a campaign: a path, or a name under runs/."""
    for path in (Path(word), Path("runs") / word):
        if (path / "ledger.jsonl").is_file():
            return path.absolute()
    known = ", ".join(p.name for p in campaigns()) or "none under runs/"
    raise ConfigError(f"{word} is not a campaign: give its directory. Known: {known}.")


def campaigns(root: Path = Path("runs")) -> list[Path]:
    """Return the campaigns under a folder, the newest last."""
    files = sorted(root.glob("*/ledger.jsonl"), key=lambda file: file.stat().st_mtime)
    return [file.parent for file in files]


def planned_runs(campaign: Path, ledger: Ledger) -> list[Run]:
    """Return every run that was ever asked for, in the order of asking."""
    names = [e["plan"] for e in ledger.events() if e["event"] == "planned"]
    runs: dict[str, Run] = {}
    for name in dict.fromkeys(names):
        for run in read_plan(campaign, name).runs:
            runs[run.key] = run
    return list(runs.values())


def run_states(campaign: Path) -> list[RunStatus]:
    """Return what became of every run.

    At most one squeue and one sacct are started, and one scontrol where both leave a job open.
    """
    ledger = Ledger(campaign)
    runs = planned_runs(campaign, ledger)
    attempts = {run.key: read_attempts(campaign, run.key) for run in runs}
    placements = ledger.placements()
    directories = _directories(runs, attempts, ledger.reused())
    done = {key for key, path in directories.items() if RunDir(Path(path)).finished()}
    job_ids = [p.job_id for key, p in placements.items() if key not in done and p.job_id != NOWHERE]
    jobs = job_states(campaign, job_ids) if job_ids else {}
    statuses = [
        _status(campaign, run, placements.get(run.key), attempts[run.key],
                directories.get(run.key), jobs, finished=run.key in done)
        for run in runs
    ]  # fmt: skip
    taken_back = ledger.cancelled()
    statuses = [
        _cancelled(s, jobs.get(s.job_id)) if s.job_id in taken_back else s for s in statuses
    ]
    return _with_blocked(runs, statuses)


def directories_of(campaign: Path, ledger: Ledger, runs: Sequence[Run]) -> dict[str, str]:
    """Return where runs lie, by key, of those that have begun or whose place is known before."""
    attempts = {run.key: read_attempts(campaign, run.key) for run in runs}
    return _directories(runs, attempts, ledger.reused())


def _directories(
    runs: Sequence[Run], attempts: Mapping[str, Attempts], reused: Mapping[str, str]
) -> dict[str, str]:
    directories = {run.key: run.directory for run in runs if run.directory} | dict(reused)
    directories |= {key: tries.last["directory"] for key, tries in attempts.items() if tries.last}
    return {key: path for key, path in directories.items() if path}


def job_states(campaign: Path, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return the states of jobs: sacct's, and squeue's before them; neither need be there."""
    jobs = _local_states(campaign, [job_id for job_id in job_ids if is_local(job_id)])
    ids = [job_id for job_id in job_ids if not is_local(job_id)]
    if not ids:
        return jobs
    try:
        jobs |= slurm.squeue()
    except slurm.SchedulerError:
        # squeue alone could say that a job which accounting has under way has ended.
        accounted = _accounting(campaign, ids)
        return jobs | {
            job_id: replace(job, queued=True) if job.state in STARTED else job
            for job_id, job in accounted.items()
        }
    left = [job_id for job_id in ids if job_id not in jobs]
    return _settled(campaign, _accounting(campaign, left), left) | jobs if left else jobs


def _local_states(campaign: Path, job_ids: Sequence[str]) -> dict[str, JobState]:
    cancelled = Ledger(campaign).cancelled() if job_ids else set()
    alive = {job_id for job_id in job_ids if is_alive(campaign, job_id)}
    states = {job_id: JobState("RUNNING", queued=True) for job_id in alive}
    return states | {
        job_id: JobState("CANCELLED") for job_id in cancelled.intersection(job_ids) - alive
    }


def _settled(
    campaign: Path, accounted: dict[str, JobState], job_ids: Sequence[str]
) -> dict[str, JobState]:
    """Return what accounting says of jobs that squeue does not list, without what cannot be.

    Accounting is some seconds behind: of a job that has just ended it may hold nothing yet, or how
    its start before this one ended. A record that a crash of slurmctld left open has its job under
    way forever. The controller knows better for some minutes after the end (MinJobAge), and what it
    said of an end is kept.
    """
    unsettled = {job_id for job_id in job_ids if not _is_final(accounted.get(job_id))}
    if not unsettled:
        return accounted
    copy = campaign / "jobs" / ".ended.json"
    ended = {job_id: JobState(**state) for job_id, state in _read_copy(copy).items()}
    try:
        known = slurm.controller_states()
    except slurm.SchedulerError:
        known = {job_id: job for job_id, job in accounted.items() if job.state in STARTED}
    # A controller that forgot a job gives its id again: what it says now comes first.
    said = {
        job_id: replace(job, queued=job.state in STARTED)
        for job_id, job in (ended | known).items()
        if job_id in unsettled
    }
    new = {job_id: job for job_id, job in said.items() if _is_final(job)}
    if new.items() - ended.items():
        write_json(copy, {job_id: asdict(job) for job_id, job in (ended | new).items()})
    return {job_id: job for job_id, job in accounted.items() if job.state not in STARTED} | said


def _read_copy(path: Path) -> dict[str, Any]:
    """Return what a command kept in the campaign for others; {} where nothing can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _is_final(job: JobState | None) -> bool:
    return job is not None and job.state not in (*STARTED, *COMES_BACK)


def _accounting(campaign: Path, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return the answer of sacct, from the campaign's copy while that is fresh."""
    copy = campaign / "jobs" / ".sacct.json"
    copied = _read_copy(copy) or {"time": 0.0, "jobs": {}}
    jobs = {job_id: JobState(**state) for job_id, state in copied["jobs"].items()}
    # What squeue no longer lists has ended since the copy has it under way or coming back.
    known = {job_id for job_id, job in jobs.items() if _is_final(job)}
    if time.time() - copied["time"] < SACCT_EVERY_S and set(job_ids) <= known:
        return jobs
    try:
        answer = slurm.sacct(job_ids)
    except slurm.SchedulerError:
        return {}  # a site without accounting
    values = {job_id: asdict(state) for job_id, state in answer.items()}
    write_json(copy, {"time": time.time(), "jobs": values})
    return answer


def _status(
    campaign: Path, run: Run, place: Placement | None, tries: Attempts,
    directory: str | None, jobs: Mapping[str, JobState], *, finished: bool,
) -> RunStatus:  # fmt: skip
    last = tries.last
    status = RunStatus(
        run.key, run.label, "planned", place.job_id if place else "", directory, tries.restarts,
        log=last["log"] if last else None, estimated_seconds=run.rank_seconds,
    )  # fmt: skip
    if directory is not None and finished:
        result = RunDir(Path(directory)).read_result()
        return replace(
            status, state="finished", device_seconds=result.get("device_seconds"),
            energy_joules=result.get("energy_joules"),
        )  # fmt: skip
    if place is None:
        return status
    job = jobs.get(place.job_id)
    if is_local(place.job_id) and job is not None and job.queued:
        job = _turn(job, place, tries)
    if job is not None and job.queued:
        return _queued(status, job, tries)
    if job is None and not tries.starts and _array_is_known(place, jobs):
        why = "its task left the queue before it began, so somebody cancelled it."
        return replace(status, state="cancelled", cause=why)
    return _ended(campaign, status, place, job, tries)


def _array_is_known(place: Placement, jobs: Mapping[str, JobState]) -> bool:
    """Whether other tasks of the array are known: of a task that is cancelled while the array is
    one pending record SLURM keeps nothing, neither in accounting nor in the controller."""
    array, _, task = place.job_id.partition("_")
    return bool(task) and any(job_id.startswith(f"{array}_") for job_id in jobs)


def _turn(job: JobState, place: Placement, tries: Attempts) -> JobState | None:
    """Return how a run is that a campaign on this machine does when its turn comes."""
    if tries.last is None or tries.last["job_id"] != place.job_id:
        return replace(job, state="PENDING")
    return job if tries.exit_status is None else None


def _queued(status: RunStatus, job: JobState, tries: Attempts) -> RunStatus:
    state = QUEUED.get(job.state, "queued")
    if state == "queued" and tries.starts:
        state = "restarting"
    if job.reason.startswith("Dependency"):
        state = "blocked" if job.reason == "DependencyNeverSatisfied" else "waiting"
    if "Held" in job.reason or "held" in job.reason:
        state = "held"
    reasons = {"held": f"SLURM holds it ({job.reason}): scontrol release {status.job_id}."}
    return replace(status, state=state, cause=reasons.get(state, ""))


def _ended(
    campaign: Path, status: RunStatus, place: Placement, job: JobState | None, tries: Attempts
) -> RunStatus:
    """Return the status of a run without result whose job squeue does not list."""
    code = tries.exit_status
    if job is None and code is None:
        return _by_signs_of_life(campaign, status, place, tries)
    if job is not None and job.state in COMES_BACK and _just_now(job.end, tries):
        return replace(status, state="restarting")
    log = Path(status.log) if status.log else job_log(campaign, place.job, place.job_id)
    word = job.state if job is not None else ""
    why, lines = cause(word, job.exit_code if job else "", code, rank_logs(log))
    state = "cancelled" if word == "CANCELLED" and code in (None, STOPPED) else "failed"
    return replace(status, state=state, cause=why, lines=tuple(lines), log=str(log))


def _by_signs_of_life(
    campaign: Path, status: RunStatus, place: Placement, tries: Attempts
) -> RunStatus:
    """Return the status by the run directory, where no scheduler knows the job."""
    if is_local(place.job_id) and tries.last is None:
        log = job_log(campaign, place.job, place.job_id)
        why, lines = cause("", "", None, [log])
        return replace(status, state="lost", cause=why, lines=tuple(lines), log=str(log))
    logs = Path(status.directory or "-").glob("logs/*")
    age = min((time.time() - file.stat().st_mtime for file in logs), default=float("inf"))
    if tries.last is not None and age < SILENT_S and not is_local(place.job_id):
        return replace(status, state="running")
    if tries.starts:
        what = "no scheduler knows its job, and it left no result"
    elif slurm.has("squeue"):
        what = (
            "SLURM does not know its job, as after a crash of its controller within seconds of the "
            "submission: dlfd retry --failed queues it again"
        )
    else:
        return replace(status, state="unknown", cause="nobody can tell what became of its job.")
    return replace(status, state="lost", cause=f"{what}.")


def _just_now(end: str, tries: Attempts) -> bool:
    try:
        when = datetime.datetime.fromisoformat(end).timestamp()
    except ValueError:  # Unknown: nobody has noted an end
        when = tries.events[-1]["time"] if tries.events else time.time()
    return time.time() - when < AGAIN_WITHIN_S


def _cancelled(status: RunStatus, job: JobState | None) -> RunStatus:
    """Return the status of a run that 'dlfd cancel' took back, whose job a scheduler still has."""
    if status.state not in UNDER_WAY:
        return status
    what = f"SLURM still has its job as {job.state}" if job else "no scheduler has its job"
    if is_local(status.job_id):
        what = "the campaign on this machine still runs"
    if status.state == "running":
        return replace(status, cause=f"it was cancelled and is ending: {what}.")
    return replace(status, state="cancelled", cause=f"it was cancelled: {what}.")


def _with_blocked(runs: Sequence[Run], statuses: Sequence[RunStatus]) -> list[RunStatus]:
    """Mark the children of runs that ended badly, saying which parent it was."""
    by_key = {status.key: status for status in statuses}
    marked = []
    for run, status in zip(runs, statuses, strict=True):
        bad = [by_key[p] for p in run.parents if p in by_key and by_key[p].state in ENDED_BADLY]
        if bad and status.state not in ("finished", "running"):
            names = " and ".join(f"{parent.label} {parent.state}" for parent in bad)
            status = replace(status, state="blocked", cause=f"{names}.", lines=())
        marked.append(status)
    return marked
