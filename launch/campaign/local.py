"""cluster=local: submitit runs a campaign's jobs on this machine, in the background."""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..children import child_environment, python_words
from .places import job_folder
from .spec import LaunchSpec

STOPPED = 75
LOCAL_JOB = "DLFD_LOCAL_JOB"
"""In the environment of a task: the id of the campaign's process."""
PRELOADED = ["launch.campaign.task", "dlfd_dist.__main__", "dlfd_dist.jobs.run"]
"""Loaded once for all tasks, torch with them: each task is forked from a process that has them."""
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
        ranks = spec.ranks if spec.ranks_per_run > 1 else 1
        # The parent of this process is the one that `start` told of.
        environment = {LOCAL_JOB: _job_id(os.getppid())}
        words = [str(self.campaign), name, str(index)]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        child = context.Process(
            target=_run_task, args=(words, ranks, self.campaign / "jobs" / log, environment)
        )
        child.start()
        stop.child = child
        if stop.asked:
            child.terminate()
        child.join()
        assert child.exitcode is not None
        return child.exitcode


def _run_task(words: list[str], ranks: int, log: Path, environment: dict[str, str]) -> None:
    """Run a task in this process, or its ranks in processes of their own, with output in a log."""
    os.environ.update(environment)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if ranks > 1:
        from ..local import run_module

        sys.exit(run_module("launch.campaign.task", ranks, words))
    from .task import main

    sys.exit(main(words))


class _Stop:
    """Passes a signal on to what runs, which saves and ends; nothing is begun after it."""

    def __init__(self) -> None:
        self.asked = False
        self.child: BaseProcess | None = None

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
