"""cluster=local: submitit runs a campaign's jobs on this machine, in the background."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .spec import LaunchSpec

DAYS = 30 * 24 * 60
"""Minutes that submitit allows the whole campaign."""


@dataclass(frozen=True)
class LocalCampaign:
    """Runs jobs one after another, parents first; children of a failed run refuse to begin."""

    campaign: Path
    jobs: tuple[tuple[str, int, LaunchSpec], ...]
    """Name, number of tasks and shape of each."""

    def __call__(self) -> int:
        worst = 0
        for name, num_tasks, spec in self.jobs:
            for index in range(num_tasks):
                worst = max(worst, self._task(name, index, spec))
        return worst

    def _task(self, name: str, index: int, spec: LaunchSpec) -> int:
        words = [str(self.campaign), name, str(index)]
        with (self.campaign / "jobs" / f"{name}.out").open("ab") as log:
            if spec.ranks_per_run == 1:
                command = [sys.executable, "-m", "launch.campaign.task", *words]
            else:
                command = [sys.executable, "-m", "launch.campaign.local", str(spec.ranks), *words]
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode


def start(campaign: Path, jobs: Sequence[tuple[str, int, LaunchSpec]]) -> str:
    """Start the jobs; return an id, from which `is_alive` tells whether they still run."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=campaign / "jobs" / "submitit")
    executor.update_parameters(timeout_min=DAYS)
    job = executor.submit(LocalCampaign(campaign, tuple(jobs)))
    return f"local:{job.job_id}@{socket.gethostname()}"


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
    """End a campaign and what it runs: they are one process group."""
    import signal

    pid = int(job_id.removeprefix("local:").partition("@")[0])
    if not is_alive(job_id):
        return
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in [*children.read_text().split(), str(pid)]:
        os.kill(int(child), signal.SIGTERM)


if __name__ == "__main__":
    from ..local import run_module

    sys.exit(run_module("launch.campaign.task", int(sys.argv[1]), sys.argv[2:]))
