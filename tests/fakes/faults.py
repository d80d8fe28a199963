"""Faults for a campaign on the lab: each does one thing to a job that runs, to a node, to the
controller, or as a user who types a command twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.execute.journal import Ledger
from tests.slurm.cluster import LAB, Lab, ask, slurm

SAVED_AFTER_S, BUSY_SAVED_AFTER_S = 6.0, 30.0
"""slurmctld saves its state within 5 s of a change, where it gets a processor."""
NODE_LIMIT_MIN = 30
"""The time limit that jobs of the campaign are submitted with."""


@dataclass(frozen=True)
class Victim:
    """A job, or a task of an array, that runs."""

    job_id: str
    nodes: tuple[str, ...]
    keys: tuple[str, ...]
    """The runs of the campaign that it does."""


def running(campaign: Path) -> list[Victim]:
    """Return the jobs of a campaign that run now; those that write the report are left out."""
    keys: dict[str, list[str]] = {}
    for key, place in Ledger(campaign).placements().items():
        keys.setdefault(place.job_id, []).append(key)
    found = []
    for line in ask("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i|%N").splitlines():
        job_id, nodes = line.strip().split("|")
        if job_id in keys and nodes:
            names = slurm("scontrol", "show", "hostnames", nodes).split()
            found.append(Victim(job_id, tuple(names), tuple(sorted(keys[job_id]))))
    return sorted(found, key=lambda one: one.keys)


def restarts(job_id: str) -> int:
    """Return how often SLURM has started a job again."""
    told = slurm("scontrol", "show", "job", "-o", job_id)
    return int(told.split("Restarts=")[1].split()[0])


@dataclass
class Faults:
    """Makes faults; what is drawn comes from the generator."""

    lab: Lab
    campaign: Path
    commands: Sequence[Sequence[str]]
    """The words of every submission of the campaign."""
    rng: random.Random
    crash_s: tuple[float, float]
    """How long a crashed node is away: from, to."""
    limited: dict[str, int] = field(default_factory=dict)
    """Jobs whose time limit was cut, and how often they had been started again by then."""

    def make(self, kind: str, victim: Victim) -> str:
        """Make a fault; return what can be said of it at once."""
        return KINDS[kind](self, victim)

    # --- signals and SLURM's own ways of ending a job

    def usr2(self, victim: Victim) -> str:
        slurm("scancel", "--signal=USR2", victim.job_id)
        return ""

    def term(self, victim: Victim) -> str:
        slurm("scancel", "--signal=TERM", victim.job_id)
        return ""

    def requeue(self, victim: Victim) -> str:
        slurm("scontrol", "requeue", victim.job_id)
        return ""

    def preempt(self, victim: Victim) -> str:
        """Let a job of the partition `high` take a whole node."""
        node = self.rng.choice(victim.nodes)
        slurm(
            "sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--time=1",
            "--job-name=fault-high", "--output=/dev/null", "--wrap=sleep 1",
        )  # fmt: skip
        return f"{node} taken"

    def time_limit(self, victim: Victim) -> str:
        """Cut the limit of a running job to the full minute after next; `raise_limits` undoes it.

        SLURM looks at limits every 30 s: one that is nearer ends the job without a signal.
        """
        elapsed = slurm("squeue", "-h", "-j", victim.job_id, "-o", "%M")
        *_, minutes, _ = elapsed.split(":")
        limit = int(minutes) + 2
        self.limited[victim.job_id] = restarts(victim.job_id)
        slurm("scontrol", "update", f"jobid={victim.job_id}", f"timelimit={limit}")
        return f"limit {limit} min after {elapsed}"

    def raise_limits(self) -> None:
        """Give jobs that have come back from a cut limit their old one."""
        listed = ask("squeue", "-h", "-r", "-o", "%i").split()
        for job_id, before in list(self.limited.items()):
            if job_id not in listed:
                del self.limited[job_id]
            elif restarts(job_id) > before:
                update = ["scontrol", "update", f"jobid={job_id}", f"timelimit={NODE_LIMIT_MIN}"]
                subprocess.run(update, capture_output=True)
                del self.limited[job_id]

    # --- nodes and the controller

    def down(self, victim: Victim) -> str:
        node = self.rng.choice(victim.nodes)
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=fault")
        time.sleep(self.rng.uniform(0.5, 3))
        # It may be back by itself, and SLURM then refuses.
        resume = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(resume, capture_output=True)
        return f"{node} down"

    def crash(self, victim: Victim) -> str:
        """Cut a node's power; boot it before or after SLURM has missed it."""
        node, seconds = self.rng.choice(victim.nodes), self.rng.uniform(*self.crash_s)
        script = str(LAB / "node.sh")
        subprocess.run(["bash", script, "crash", node], check=True, capture_output=True)
        time.sleep(seconds)
        subprocess.run(["bash", script, "boot", node], check=True, capture_output=True)
        return f"{node} off for {seconds:.0f} s"

    def controller(self, victim: Victim) -> str:
        """Kill slurmctld and start it again."""
        self._wait_until_saved()
        return self._controller_gone(self.rng.uniform(0.5, 8))

    def _wait_until_saved(self) -> None:
        """Wait until SLURM has written down what was queued: jobs of the last seconds before a
        crash it loses itself, and gives their ids again (docs/slurm.md)."""
        noted = Ledger(self.campaign).file.stat().st_mtime
        time.sleep(max(0.0, noted + SAVED_AFTER_S - time.time()))
        saved = self.lab.folder / "state" / "job_state"
        # A busy machine takes longer. What was saved before the ledger was written is whole too.
        while saved.stat().st_mtime < noted and time.time() < noted + BUSY_SAVED_AFTER_S:
            time.sleep(0.2)

    def usr2_controller(self, victim: Victim) -> str:
        """Ask a job to stop, and let there be nobody to requeue it for longer than clients wait."""
        self._wait_until_saved()
        slurm("scancel", "--signal=USR2", victim.job_id)
        time.sleep(self.rng.uniform(0.1, 0.6))
        return self._controller_gone(self.rng.uniform(11, 15))

    def _controller_gone(self, seconds: float) -> str:
        pid = int((self.lab.folder / "run" / "slurmctld.pid").read_text().split()[0])
        os.kill(pid, 9)
        time.sleep(seconds)
        up = subprocess.run(["bash", str(LAB / "up.sh")], capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
        return f"slurmctld gone for {seconds:.0f} s"

    # --- people

    def submit_twice(self, victim: Victim) -> str:
        return twice("submit", *self.rng.choice(self.commands), "--json")

    def retry_twice(self, victim: Victim) -> str:
        """Cancel a job and, once it has ended, try again in two windows at once."""
        slurm("scancel", victim.job_id)
        end = time.monotonic() + 60
        while victim.job_id in ask("squeue", "-h", "-r", "-o", "%i").split():
            assert time.monotonic() < end, f"{victim.job_id} does not end"
            time.sleep(0.3)
        return twice("retry", str(self.campaign), "--failed", "--json")


def twice(*words: str) -> str:
    """Run the same dlfd command in two processes at once; say what each queued."""
    command = [sys.executable, "-m", "launch.cli", *words]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = []
    for one in both:
        out, err = one.communicate(timeout=180)
        assert one.returncode == 0, f"{' '.join(words)}: exit status {one.returncode}\n{out}{err}"
        queued = json.loads(out)["runs"] if out.startswith("{") else []
        told.append(str(len(queued)))
    return f"{' and '.join(told)} runs queued"


KINDS: dict[str, Callable[[Faults, Victim], str]] = {
    "scancel -s USR2": Faults.usr2,
    "scancel -s TERM": Faults.term,
    "scontrol requeue": Faults.requeue,
    "preempted by high": Faults.preempt,
    "time limit": Faults.time_limit,
    "node set down": Faults.down,
    "node crash and boot": Faults.crash,
    "slurmctld killed": Faults.controller,
    "USR2, then slurmctld killed": Faults.usr2_controller,
    "submitted twice at once": Faults.submit_twice,
    "cancelled, two retry at once": Faults.retry_twice,
}


QUICK = [name for name in KINDS if name.startswith(("scancel", "scontrol", "preempted", "time"))]
"""Kinds that take a moment to make; they come more often, or the work would end before its time."""


def draw_schedule(num_faults: int, rng: random.Random) -> list[str]:
    """Return the kinds in the order they come: all of them, the quick ones three times as often."""
    drawn: list[str] = []
    while len(drawn) < num_faults:
        names = list(KINDS)
        rng.shuffle(names)
        drawn += [*names, *rng.sample(QUICK * 2, 2 * len(QUICK))]
    drawn = drawn[:num_faults]
    rng.shuffle(drawn)
    return drawn
