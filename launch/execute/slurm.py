"""SLURM's commands, called with argument lists and no shell, and their answers.

Jobs are submitted by submitit (executor.py); here is what submitit does not ask.
"""

from __future__ import annotations

import getpass
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError, DlfdError
from dlfd_dist.registry import near_match
from dlfd_dist.runtime.accounting import seconds

TIMEOUT_S = 60
COMPLETING_S = 30.0
"""How long a job may take to end before it can be cancelled or goes on."""
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
"""Variables of the machine rather than of a job."""

STARTED = ("RUNNING", "COMPLETING", "PENDING", "CONFIGURING", "SUSPENDED", "RESIZING")
"""SLURM's words for a job that has not ended."""


class SchedulerError(DlfdError):
    """SLURM refused or did not answer.

    words : those of the command itself, where there are any
    """

    exit_status = 2

    def __init__(self, message: str, words: str = ""):
        super().__init__(message)
        self.words = words or message


@dataclass(frozen=True)
class JobState:
    """What squeue or sacct says of a job or a task of an array."""

    state: str
    """SLURM's word, such as RUNNING"""
    reason: str = ""
    exit_code: str = ""
    node: str = ""
    end: str = ""
    """When it ended, as sacct prints it."""
    queued: bool = False
    """squeue knows it: whatever sacct says, it has not ended."""


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo shows it."""

    name: str
    time_min: float
    """Time limit in minutes; inf: none."""
    nodes: int


def has(command: str) -> bool:
    return shutil.which(command) is not None


def _outside_a_job() -> dict[str, str]:
    """Return the environment without the variables of a job that we may run in ourselves: sbatch
    would obey them. (submitit's clean_env would take SLURM_CONF away as well.)"""
    return {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or not name.startswith(("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_"))
    }


def call(arguments: Sequence[str], text: str | None = None, *, timeout_s: float = TIMEOUT_S) -> str:
    """Return the standard output of a command; SchedulerError with its own words if it failed.

    Parameters
    ----------
    text : standard input of the command
    """
    command = arguments[0]
    try:
        done = subprocess.run(
            list(arguments), input=text, capture_output=True, text=True, timeout=timeout_s,
            env=_outside_a_job(),
        )  # fmt: skip
    except FileNotFoundError as err:
        raise SchedulerError(
            f"There is no {command} on this machine.", f"{command}: {err}"
        ) from err
    except subprocess.TimeoutExpired as err:
        raise SchedulerError(
            f"{command} did not answer within {timeout_s} s.",
            f"{command}: no answer in {timeout_s} s",
        ) from err
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        words = lines[-1].strip() if lines else f"exit status {done.returncode}"
        reason = _plain(words) if lines else "no reason given"
        raise SchedulerError(f"{command} refused: {reason}.", words)
    return done.stdout if text is None or done.stdout else done.stderr


def _plain(line: str) -> str:
    return re.split(r"(?:error|fatal): ", line, maxsplit=1)[-1].strip().rstrip(".")


JOB_ID = re.compile(r"(\d+)(;[\w.-]+)?")
"""What sbatch --parsable prints: the id, and the cluster where there are several."""


def one_job_id(answer: str) -> str:
    """Return the id of the job that sbatch --parsable queued."""
    # A site's plugin may print a banner before the id, or after it.
    numbers = [
        match[1] for line in answer.splitlines() if (match := JOB_ID.fullmatch(line.strip()))
    ]
    if len(numbers) != 1:
        raise SchedulerError(
            f"sbatch told no job id that can be read; it said: {answer.strip()[:300]!r}. A job may "
            "be queued: 'squeue --me' shows it, and scancel takes it back."
        )
    return numbers[0]


def test_only(text: str) -> str:
    """Return what sbatch --test-only says of a script: when and where it would start."""
    return call(["sbatch", "--test-only"], text).strip().removeprefix("sbatch: ")


def scancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended are passed over.

    A job that is about to be requeued cannot be cancelled while its start before is completing.
    """
    for start in range(0, len(job_ids), 500):
        end = time.monotonic() + COMPLETING_S
        while True:
            try:
                call(["scancel", "--quiet", *job_ids[start : start + 500]])
                break
            except SchedulerError as err:
                if "completing" not in str(err) or time.monotonic() > end:
                    raise
            time.sleep(1)


def _user() -> str:
    """Return the user's name, or number where no name is known, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def squeue() -> dict[str, JobState]:
    """Return every job of this user that has not ended, tasks of arrays one by one."""
    answer = call(["squeue", "-h", "-r", "-u", _user(), "-o", "%i|%T|%r|%N"])
    jobs = {}
    for line in answer.splitlines():
        job_id, state, reason, node = line.split("|", 3)
        jobs[job_id.strip()] = JobState(state, reason, node=node, queued=True)
    return jobs


def queued_by_name(name: str) -> str | None:
    """Return the id of the queued job of that name."""
    answer = call(["squeue", "-h", "-u", _user(), "-n", name, "-o", "%F"]).split()
    return answer[0] if answer else None


def sacct(job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return what accounting holds of these jobs, in one call."""
    ids = sorted({job_id.split("_")[0] for job_id in job_ids})
    answer = call(
        ["sacct", "-X", "-n", "-P", "-j", ",".join(ids), "-o", "JobID,State,ExitCode,NodeList,End"]
    )
    jobs = {}
    for line in answer.splitlines():
        job_id, state, code, node, end = line.split("|", 4)
        for task_id in _expanded(job_id):
            # "CANCELLED by 0": the word alone is the state.
            jobs[task_id] = JobState(state.split()[0], exit_code=code, node=node, end=end)
    return jobs


def controller_states() -> dict[str, JobState]:
    """Return every job of this user that the controller knows, ended ones too, in one call."""
    jobs, own = {}, f"({os.getuid()})"  # it writes name(number)
    for fields in shown_jobs():
        if not fields.get("UserId", own).endswith(own):
            continue
        job_id = fields.get("JobId", "")
        if fields.get("ArrayTaskId", "").isdecimal():
            job_id = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
        if job_id:
            jobs[job_id] = JobState(
                fields["JobState"], fields.get("Reason", ""), fields.get("ExitCode", ""),
                fields.get("NodeList", ""), fields.get("EndTime", ""),
            )  # fmt: skip
    return jobs


def shown_jobs(*job_ids: str) -> list[dict[str, str]]:
    """Return what `scontrol show job` prints of jobs, or of all of them: values by their name."""
    answer = call(["scontrol", "show", "job", "-o", *job_ids])
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in answer.splitlines()]


def _expanded(job_id: str) -> Iterator[str]:
    """Yield the tasks that a line of sacct stands for: 7_[0-2,5%2] is four that are pending."""
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(?:%\d+)?\]", job_id)
    if match is None:
        yield job_id
        return
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        for index in range(int(first), int(last or first) + 1):
            yield f"{match[1]}_{index}"


def partitions() -> list[Partition]:
    """Return the partitions of the cluster; sinfo marks the default one, and we drop the mark."""
    partitions = []
    for line in call(["sinfo", "-h", "-o", "%R|%l|%D"]).splitlines():
        name, limit, nodes = line.split("|")
        time_s = seconds(limit)
        time_min = math.inf if time_s is None else time_s / 60
        partitions.append(Partition(name.strip(), time_min, int(nodes)))
    return partitions


def check_cluster(cluster: ClusterConfig, nodes: int) -> None:
    """Refuse what this cluster cannot give: partition, nodes, time."""
    if not has("sbatch"):
        raise ConfigError(
            "There is no sbatch on this machine: submit from a login node, look with --dry-run, or "
            "take cluster=local."
        )
    known = partitions() if has("sinfo") else []
    if not known:
        return
    names = [partition.name for partition in known]
    wanted = names if cluster.partition is None else cluster.partition.split(",")
    named = [partition for partition in known if partition.name in wanted]
    if not named:
        raise _unknown_partition("partition", str(cluster.partition), names)
    if (report := cluster.report_partition) and not {*report.split(",")} & {*names}:
        raise _unknown_partition("report_partition", report, names)
    largest = max(named, key=lambda partition: partition.nodes)
    if nodes > largest.nodes:
        raise ConfigError(
            f"cluster.nodes={nodes} is more than the {largest.nodes} nodes of partition "
            f"{largest.name}: use fewer."
        )
    longest = max(named, key=lambda partition: partition.time_min)
    if cluster.time_min > longest.time_min:
        raise ConfigError(
            f"cluster.time_min={cluster.time_min} is over the limit of partition {longest.name}, "
            f"{longest.time_min:.0f} minutes: give less; a run that needs longer requeues itself."
        )


def _unknown_partition(setting: str, value: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"cluster.{setting}={value} is not known here. Available: {', '.join(names)}."
        + near_match(value, names)
    )
