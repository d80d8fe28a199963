"""cluster=local: submitit runs a campaign's jobs on this machine, in the background."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        command = [sys.executable, "-m", "launch.campaign.task"]
        if spec.ranks_per_run > 1:
            command = [sys.executable, "-m", "launch.campaign.local", str(spec.ranks)]
        # The parent of this process is the one that `start` told of.
        environment = {**os.environ, LOCAL_JOB: _job_id(os.getppid())}
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


def _job_id(pid: int) -> str:
    return f"local:{pid}@{socket.gethostname()}"


def start(campaign: Path, jobs: Sequence[tuple[str, int, LaunchSpec]]) -> str:
    """Start the jobs; return an id, from which `is_alive` tells whether they still run."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=campaign / "jobs" / "submitit")
    executor.update_parameters(timeout_min=DAYS)
    job = executor.submit(LocalCampaign(campaign, tuple(jobs)))
    return _job_id(int(job.job_id))


def is_alive(job_id: str) -> bool:
    """Return whether a campaign runs on this machine; of another machine's nobody can tell."""
    pid, _, host = job_id.removeprefix("local:").partition("@")
    if host != socket.gethostname():
        return False
    try:
        # A zombie has an empty command line.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def cancel(job_id: str) -> None:
    """Stop a campaign: what runs saves and ends, and nothing more is begun."""
    if is_alive(job_id):
        os.kill(int(job_id.removeprefix("local:").partition("@")[0]), signal.SIGTERM)


if __name__ == "__main__":
    from ..local import run_module

    sys.exit(run_module("launch.campaign.task", int(sys.argv[1]), sys.argv[2:]))
