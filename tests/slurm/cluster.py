"""Jobs on the lab: submit a template, wait for something to happen, do something to a node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import submitit

REPOSITORY = Path(__file__).parents[2]
LAB = REPOSITORY / "slurm" / "lab"
WORKERS = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
PATIENCE = float(os.environ.get("SLURM_LAB_PATIENCE", WORKERS))
"""How many times longer than on an idle machine everything may take here: workers share it."""
POLL_S = (0.05, 1.0)
"""The shortest and the longest time between two checks."""
POLL_SHARE = 5
"""A wait sleeps so many times longer than its check took: the jobs need the cores."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


def slurm(*command: str) -> str:
    """Run a SLURM command and return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ask(*query: str, tries: int = 6, wait_s: float = 5.0) -> str:
    """Run a SLURM command that changes nothing, again where a busy controller did not answer."""
    for _ in range(tries - 1):
        try:
            return slurm(*query)
        except (AssertionError, subprocess.TimeoutExpired):
            time.sleep(wait_s)
    return slurm(*query)


@dataclass(frozen=True)
class Job:
    """A job of the lab and the file that its output goes to."""

    number: str
    output: Path

    def told(self, name: str) -> str:
        match = re.search(rf"\b{name}=(\S*)", slurm("scontrol", "show", "job", "-o", self.number))
        return match[1] if match else ""

    @property
    def state(self) -> str:
        return self.told("JobState")

    @property
    def restarts(self) -> int:
        return int(self.told("Restarts"))

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait_for(self, reached: Callable[[], bool], timeout_s: float = 150) -> None:
        """Wait until something is seen; fail when the job ends before."""

        def check() -> bool:
            if reached():
                return True
            assert self.state not in ENDED, f"{self.state}\n{self.said}"
            return False

        wait_for(check, timeout_s=timeout_s, seen=lambda: f"{self.state}\n{self.said}")

    def wait(self, timeout_s: float = 150) -> str:
        """Return the state in which the job ended."""
        wait_for(
            lambda: self.state in ENDED,
            timeout_s=timeout_s,
            seen=lambda: f"{self.state}\n{self.said}",
        )
        return self.state


def lab_folder() -> Path:
    """Return the folder of this process's lab, as slurm/lab/lib.sh does."""
    number = os.environ.get("SLURM_LAB_NUMBER", "0")
    default = "/tmp/slurm-lab" if number == "0" else f"/tmp/slurm-lab-{number}"
    return Path(os.environ.get("SLURM_LAB_DIR", default))


@dataclass
class Lab:
    """The cluster of this process."""

    folder: Path = field(default_factory=lab_folder)

    def is_up(self) -> bool:
        config = self.folder / "slurm.conf"
        if not config.is_file():
            return False
        environment = {**os.environ, "SLURM_CONF": str(config)}
        try:
            done = subprocess.run(["scontrol", "ping"], env=environment, capture_output=True)
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def has_namespaces(self) -> bool:
        return "NET=netns" in (self.folder / "settings").read_text()

    def submit(self, *arguments: str, output: Path) -> Job:
        """sbatch with these arguments; small memory, five minutes."""
        options = ["--parsable", "--mem-per-cpu=500", "--time=5", f"--output={output}"]
        return Job(slurm("sbatch", *options, *arguments), output)

    def template(self, name: str, words: list[str], *options: str) -> Job:
        """Submit a template; its output lies beside the run's directory."""
        run = Path(next(w for w in words if w.startswith("run.dir=")).removeprefix("run.dir="))
        script = str(REPOSITORY / "slurm" / "templates" / f"{name}.sbatch")
        return self.submit(*options, script, *words, output=run.with_suffix(".out"))

    def resume(self, node: str) -> None:
        """Put a node back to work, unless it has come back by itself."""
        if "idle" not in slurm("sinfo", "-h", "-N", "-n", node, "-o", "%T"):
            subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"])

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until none is left."""

        def is_empty() -> bool:
            if jobs := slurm("squeue", "-h", "-o", "%A").split():
                # SLURM refuses for a moment where a job is about to be requeued.
                subprocess.run(["scancel", *jobs], capture_output=True)
            return not jobs

        wait_for(is_empty, seen=lambda: slurm("squeue"))


def events(run: Path, kind: str) -> list[dict]:
    """Return the events of one kind in a run that may be going on."""
    from dlfd_dist.run_dir import RunDir, read_events

    return [event for event in read_events(RunDir(run).metrics) if event["event"] == kind]


def ended(job: submitit.Job, state: str) -> bool:
    """Return whether a job of submitit is in this state; `job.state` alone is minutes old."""
    return job.watcher.get_state(job.job_id, mode="force") == state


def states(dlfd: Callable[..., tuple[int, str]], campaign: Path) -> dict[str, dict[str, Any]]:
    _, out = dlfd("status", campaign, "--json")
    return {run["label"]: run for run in json.loads(out)["runs"]}


def wait_for(
    reached: Callable[[], bool], *, timeout_s: float = 240, seen: Callable[[], str] = str
) -> None:
    """Wait until something is reached.

    Parameters
    ----------
    seen : returns what the failure says when it is not reached in time
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    while True:
        start = time.monotonic()
        if reached():
            return
        end = time.monotonic()
        assert end < deadline, f"not in {timeout_s * PATIENCE:g} s; {seen()}"
        time.sleep(min(max(POLL_SHARE * (end - start), POLL_S[0]), POLL_S[1]))
