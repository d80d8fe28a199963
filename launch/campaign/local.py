"""cluster=local: submitit runs a campaign's jobs on this machine, in the background."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..children import child_environment, python_words
from .places import job_folder
from .spec import LaunchSpec

STOPPED = 75
LOCAL_JOB = "DLFD_LOCAL_JOB"
"""In the environment of a task: the id of the campaign's process."""
DAYS = 30 * 24 * 60
"""Minutes that submitit allows the whole campaign."""


@dataclass(frozen=True)
class LocalCampaign:
    """Runs jobs one after another, parents first; children of a failed run refuse to begin."""

    campaign: Path
    jobs: tuple[tuple[str, int, LaunchSpec], ...]
    """Name, number of tasks and shape of each."""

    def __call__(self) -> int:
        worst, stop = 0, _Stop()
        # submitit passes TERM on to this process, and would have it ignored.
        signal.signal(signal.SIGTERM, stop)
        for name, num_tasks, spec in self.jobs:
            for index in range(num_tasks):
                if stop.asked:
                    return STOPPED
                log = f"{name}_{index}.out" if num_tasks > 1 else f"{name}.out"
                worst = max(worst, self._task(name, index, spec, log, stop))
        return worst

    def _task(self, name: str, index: int, spec: LaunchSpec, log: str, stop: _Stop) -> int:
        command = python_words("launch.campaign.task")
        if spec.ranks_per_run > 1:
            command = [*python_words("launch.campaign.local"), str(spec.ranks)]
        # The parent of this process is the one that `start` told of.
        environment = child_environment({**os.environ, LOCAL_JOB: _job_id(os.getppid())})
        with (self.campaign / "jobs" / log).open("ab") as file:
            stop.child = subprocess.Popen(
                [*command, str(self.campaign), name, str(index)],
                stdout=file, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
            if stop.asked:
                stop.child.terminate()
            return stop.child.wait()


class _Stop:
    """Passes a signal on to what runs, which saves and ends; nothing is begun after it."""

    def __init__(self) -> None:
        self.asked = False
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self, *_: object) -> None:
        self.asked = True
        if self.child is not None:
            self.child.terminate()


@dataclass(frozen=True)
class Process:
    """A process and no other: Linux gives its number to another one after its end."""

    pid: int
    started: int
    """Clock ticks since the machine was started, from /proc/PID/stat."""
    boot: str
    """Id of that start of the machine."""
    host: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has a number now; OSError where there is none, or a zombie."""
        # The name in parentheses may hold blanks and parentheses of its own.
        state, *values = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        if state == "Z":
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

    def is_alive(self) -> bool:
        """Whether it runs on this machine; of another machine's nobody can tell."""
        try:
            return Process.of(self.pid) == self
        except OSError:
            return False

    def terminate(self) -> None:
        """Send TERM to this process, and to no other that has its number by now."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGTERM)


JOB_ID = re.compile(r"local:([1-9]\d*)\.(\d+)\.([0-9a-f-]{36})@(.+)")


def _job_id(pid: int) -> str:
    return Process.of(pid).job_id


def start(campaign: Path, jobs: Sequence[tuple[str, int, LaunchSpec]]) -> str:
    """Start the jobs; return an id, from which `is_alive` tells whether they still run."""
    from submitit import LocalExecutor

    from ..execute.executor import make_job_folder

    # submitit puts these words before `-m submitit.core._submit` on a command line that it splits.
    python = shlex.join(python_words("")[:-2])
    os.environ.update(child_environment())
    folder = make_job_folder(job_folder(campaign))
    executor = LocalExecutor(folder=folder, python=python)
    executor.update_parameters(timeout_min=DAYS)
    job = executor.submit(LocalCampaign(campaign, tuple(jobs)))
    return _job_id(int(job.job_id))


def is_alive(job_id: str) -> bool:
    """Return whether a campaign runs on this machine; of another machine's nobody can tell."""
    process = Process.read(job_id)
    return process is not None and process.is_alive()


def cancel(job_id: str) -> None:
    """Stop a campaign: what runs saves and ends, and nothing more is begun."""
    if process := Process.read(job_id):
        process.terminate()


if __name__ == "__main__":
    from ..local import run_module

    sys.exit(run_module("launch.campaign.task", int(sys.argv[1]), sys.argv[2:]))
