"""The process of a campaign on this machine, told from any later process of the same number."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlfd_dist.errors import RunDirError

CONTROLLER = "submitit.local._local"
"""What submitit starts for a campaign, with the folder of its jobs as the last word."""
Send = Callable[[signal.Signals], None]
JOB_ID = re.compile(r"local:([1-9]\d{0,9})\.(\d{1,19})\.([0-9a-f-]{36})@(.+)")


def is_local(job_id: str) -> bool:
    """Whether a job is done by a process of a machine, and not by SLURM."""
    return job_id.startswith("local:")


@dataclass(frozen=True)
class Process:
    """One process for good: Linux gives its number to another process after its end."""

    pid: int
    started: int
    """Clock ticks since the machine was started, from /proc/PID/stat."""
    boot: str
    """Id of that start of the machine."""
    host: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has a number now; OSError where there is none, or a zombie."""
        # The name in parentheses is any bytes, blanks and parentheses among them.
        state, *values = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if state == b"Z":
            raise ProcessLookupError(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return cls(pid, int(values[18]), boot, socket.gethostname())

    @classmethod
    def read(cls, job_id: str) -> Process | None:
        """Return the process of an id; None for an id that is not one of `job_id`."""
        match = JOB_ID.fullmatch(job_id)
        return match and cls(int(match[1]), int(match[2]), match[3], match[4])

    @property
    def job_id(self) -> str:
        return f"local:{self.pid}.{self.started}.{self.boot}@{self.host}"

    def runs(self, folder: Path) -> bool:
        """Whether it is on this machine and runs the jobs of a folder.

        A process of another machine counts as ended. The command line is compared because an edited
        record may name any other process by its number and start.
        """
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
            return (
                words[-4:-2] == [b"-m", CONTROLLER.encode()]
                and os.path.samefile(words[-2], folder)
                and Process.of(self.pid) == self
            )
        except OSError:
            return False

    def terminate(self, folder: Path) -> None:
        """Send TERM to this process where it runs the jobs of a folder, and never to another one.

        Raises RunDirError where it belongs to another user.
        """
        try:
            with _pinned(self.pid) as send:
                if self.runs(folder):
                    send(signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as err:
            raise RunDirError(
                f"Process {self.pid} of the campaign belongs to another user, who alone can stop "
                "it: ask them to run 'dlfd cancel'."
            ) from err


@contextmanager
def _pinned(pid: int) -> Iterator[Send]:
    """Give what signals the process that has a number now, even if the number is given again."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as err:
        if err.errno != errno.ENOSYS:  # Linux before 5.3
            raise
        yield lambda number: os.kill(pid, number)
        return
    try:
        yield lambda number: signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
