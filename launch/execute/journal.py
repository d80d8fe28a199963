"""What was queued and what became of it: append-only files of a campaign.

The ledger says what was submitted and when. A file per run says when the run started and how it
ended; the job that does the run writes it. Several login nodes may submit, retry and look at once:
every write is one line, under a lock that holds between hosts (`dlfd_dist.locks`).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import append_event, holding, read_events

from .process import is_local

LOCK_WAIT_S = 60.0
RUN_WAIT_S = 150.0
"""How long another job may hold a run: a file system may need that long to take the lock from a
node that was lost."""
NOWHERE = ""
"""The id of a job that SLURM forgot and whose id it gave again."""


@dataclass(frozen=True)
class Placement:
    """Where a run was put: the task of a SLURM job."""

    job: str
    """Name of the job within the campaign, such as 01-train."""
    job_id: str
    """As squeue prints it: 123, or 123_4 for a task of an array."""


@dataclass
class Ledger:
    """The events of one campaign."""

    path: Path
    _is_locked: bool = field(default=False, repr=False)

    @property
    def file(self) -> Path:
        return self.path / "ledger.jsonl"

    @contextlib.contextmanager
    def locked(self) -> Iterator[Ledger]:
        """Hold the campaign: what is read inside stays true until the block ends."""
        message = (
            f"{self.path} has been held by another dlfd command ({{holder}}) for "
            f"{LOCK_WAIT_S:.0f} s: wait until it has ended, and try again."
        )
        with holding(self.path / "ledger.lock", message, wait_s=LOCK_WAIT_S):
            self._is_locked = True
            try:
                yield self
            finally:
                self._is_locked = False

    def append(self, event: str, **facts: Any) -> None:
        """Add a line; only inside `locked`."""
        assert self._is_locked, "the ledger is written under its lock"
        line = {"event": event, "time": time.time(), "host": socket.gethostname(), **facts}
        append_event(self.file, line, synced=True)

    def events(self) -> list[dict[str, Any]]:
        """Return every event; a line that a crash cut off does not count.

        Raises RunDirError for a line that no dlfd wrote.
        """
        events = read_events(self.file)
        for number, event in enumerate(events, start=1):
            if not _is_event(event):
                raise RunDirError(
                    f"{self.file}: event {number} is not an event of a campaign: take it out, "
                    "or submit to another run.dir."
                )
        return events

    def placements(self) -> dict[str, Placement]:
        """Return where each run was put last, by its key.

        A controller that crashes within seconds of sbatch forgets the job and gives its id again:
        the runs that were put there before are lost.
        """
        placements: dict[str, Placement] = {}
        for event in self.events():
            if event["event"] == "submitted":
                for key, place in placements.items():
                    if place.job != event["job"] and given_again(place.job_id, event["job_id"]):
                        placements[key] = Placement(place.job, NOWHERE)
                placements |= placements_of(event)
        return placements

    def reused(self) -> dict[str, str]:
        """Return the directories of runs that were finished when they were asked for, by key."""
        directories: dict[str, str] = {}
        for event in self.events():
            if event["event"] == "planned":
                directories |= event["reused"]
        return directories

    def last_planned(self) -> dict[str, Any]:
        """Return the event of the last submission; its `plan` names the plan file."""
        return [event for event in self.events() if event["event"] == "planned"][-1]

    def report_job(self) -> str | None:
        """Return the id of the last report job."""
        ids = [e["job_id"] for e in self.events() if e["event"] == "submitted" and e["report"]]
        return ids[-1] if ids else None

    def job_ids(self) -> list[str]:
        """Return the id of every task that SLURM was ever given, those of reports left out."""
        events = [e for e in self.events() if e["event"] == "submitted" and not e["report"]]
        ids = [job_id for event in events for job_id in ids_of(event)]
        return [job_id for job_id in ids if not is_local(job_id)]

    def cancelled(self) -> set[str]:
        """Return the ids of the jobs that were cancelled by command."""
        events = (event for event in self.events() if event["event"] == "cancelled")
        return {job_id for event in events for job_id in event["job_ids"]}

    def unanswered(self) -> list[dict[str, Any]]:
        """Return the submissions that were begun and whose outcome nobody wrote down."""
        begun: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["event"] == "submitting":
                begun[event["job"]] = event
            elif event["event"] in ("submitted", "refused"):
                begun.pop(event["job"], None)
        return list(begun.values())


def _is_event(line: Any) -> bool:
    """Whether a line names an event, and a job, if any, by a text."""
    return isinstance(line, dict) and all(
        isinstance(line.get(name, ""), str) for name in ("event", "job", "job_id")
    ) and "event" in line  # fmt: skip


def given_again(job_id: str, new: str) -> bool:
    """Whether a later submission has the id of a job, or of the array that it is a task of.

    The jobs of a campaign on this machine are done by one process, and have its id.
    """
    return not is_local(new) and job_id.partition("_")[0] == new


def placements_of(event: dict[str, Any]) -> dict[str, Placement]:
    """Return where a submission put its runs."""
    return {
        key: Placement(event["job"], job_id)
        for job_id, unit in zip(ids_of(event), event["units"], strict=True)
        for key in unit
    }


def ids_of(event: dict[str, Any]) -> list[str]:
    """Return the id of each task of a submission, or that of its only one."""
    job_id, num_tasks = event["job_id"], len(event["units"])
    return [f"{job_id}_{n}" if event["array"] else job_id for n in range(num_tasks)]


# --- the starts and ends of a run


@dataclass(frozen=True)
class Attempts:
    """The starts of one run."""

    events: tuple[dict[str, Any], ...] = ()

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "start"]

    @property
    def last(self) -> dict[str, Any] | None:
        return self.starts[-1] if self.starts else None

    @property
    def exit_status(self) -> int | None:
        """Exit status of the last start; None: it runs, or was killed."""
        last = self.events[-1] if self.events else None
        return last["status"] if last is not None and last["event"] == "end" else None

    @property
    def restarts(self) -> int:
        return max(0, len(self.starts) - 1)


def attempts_file(campaign: Path, key: str) -> Path:
    return campaign / "attempts" / f"{key}.jsonl"


def read_attempts(campaign: Path, key: str) -> Attempts:
    return Attempts(tuple(read_events(attempts_file(campaign, key))))


@contextlib.contextmanager
def attempt(campaign: Path, key: str, facts: Mapping[str, Any]) -> Iterator[list[int]]:
    """Record a start and, from the list that is yielded, how it ended; hold the run meanwhile."""
    file = attempts_file(campaign, key)
    message = f"Another job is doing run {key} ({{holder}}): this one leaves it alone."
    with holding(file.with_suffix(".lock"), message, wait_s=RUN_WAIT_S):
        common = {"time": time.time(), "host": socket.gethostname()}
        append_event(file, {"event": "start", **common, **facts})
        status: list[int] = []
        try:
            yield status
        finally:
            if status:
                append_event(file, {"event": "end", "time": time.time(), "status": status[-1]})
