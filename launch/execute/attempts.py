"""Starts and ends of a planned run, written by the job that does it: one file per run.

Only one job does a run at a time, and holds its lock meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfd_dist.errors import RunDirError
from dlfd_dist.locks import Held, locked
from dlfd_dist.run_dir import append_event, read_events

LOCK_WAIT_S = 150.0
"""A file system may take so long to take the lock from a node that was lost."""


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
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(file.with_suffix(".lock"), wait_s=LOCK_WAIT_S, poll_s=0.5))
        except Held as err:
            raise RunDirError(
                f"Another job is doing run {key} ({err}): this one leaves it alone."
            ) from err
        common = {"time": time.time(), "host": socket.gethostname()}
        append_event(file, {"event": "start", **common, **facts})
        status: list[int] = []
        try:
            yield status
        finally:
            if status:
                append_event(file, {"event": "end", "time": time.time(), "status": status[-1]})
