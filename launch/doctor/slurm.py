"""dlfd doctor cluster=NAME (or slurm): what a cluster can do, by its clients and one tiny job.

The job runs one task on each of a few nodes (launch/doctor/probe.py) and takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.compose import split_cluster
from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.locks import take
from dlfd_dist.registry import near_match
from dlfd_dist.resources import resource_dir
from dlfd_dist.run_dir import write_text

from ..children import SAFE_PATH, python_words
from ..execute.batch import (
    further_options,
    gpus,
    memory,
    place,
    refuse_control_characters,
    texts_of,
)
from ..execute.slurm import SchedulerError
from .check import Check
from .nodes import LOCK_REMEDY, check_nodes, last_line
from .probe import NodeFinding, read_findings

if TYPE_CHECKING:
    from ..execute.executor import Executor

CLIENTS = ("sinfo", "sbatch", "squeue", "scontrol", "srun", "scancel")
ANSWER_S = 30
"""How long a SLURM command may take."""
PATIENCE_S = 5.0
"""How late a network file system may show here what the nodes wrote."""
NO_FOLDER, NO_PYTHON = 41, 42
"""Exit statuses of the probe job's script."""
USABLE = ("idle", "mixed", "allocated", "completing", "planned")
"""States of a node that takes jobs; a '*' behind the state: it does not answer."""
SLEEPING_OR_PLANNED = "~#%+-"
"""Signs behind a state that do not keep a node from taking jobs."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")


@dataclass(frozen=True)
class Question:
    """What is asked of the cluster: the words after `dlfd doctor slurm`, or `dlfd doctor`."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    nodes: int = 2
    gpus_per_node: int = 0
    shared: str = "."
    """The folder that runs will be written to."""
    python: str = sys.executable
    wait_s: int = 300
    """How long the probe job may wait and run."""
    site: ClusterConfig = field(default_factory=ClusterConfig)
    """What cluster=NAME says: the probe job is asked for as the jobs of a campaign would be."""


def read_question(words: Sequence[str]) -> Question:
    """Return the question that key=value words ask; what cluster=NAME says comes first."""
    of_site = [word for word in words if word.startswith(("cluster=", "cluster."))]
    question = _question_of(split_cluster(of_site)[0]) if of_site else Question()
    kinds = {one.name: type(one.default) for one in fields(Question) if one.name != "site"}
    given: dict[str, str | int] = {}
    for word in (word for word in words if word not in of_site):
        name, separator, value = word.partition("=")
        if name not in kinds or not separator:
            raise ConfigError(
                f"'{word}' is not understood. 'dlfd doctor' takes, of a cluster, cluster=NAME, "
                + ", ".join(f"{known}=" for known in kinds)
                + f".{near_match(name, kinds)}"
            )
        given[name] = _number(name, value) if kinds[name] is int else value
    return replace(question, **given)  # pyright: ignore[reportArgumentType]


def _question_of(site: ClusterConfig) -> Question:
    if site.kind != "slurm":
        raise ConfigError(
            f"cluster.kind={site.kind} is this machine: 'dlfd doctor' without words checks it."
        )
    return Question(
        site.partition or "", site.account or "", site.qos or "", nodes=site.nodes or 2,
        gpus_per_node=0 if site.gpus == "none" else site.tasks_per_node or site.max_tasks_per_node,
        python=site.python or sys.executable, site=site,
    )  # fmt: skip


def _number(name: str, value: str) -> int:
    least = 0 if name == "gpus_per_node" else 1
    if not value.isdecimal() or int(value) < least:
        raise ConfigError(f"{name}='{value}' is not a whole number from {least} up.")
    return int(value)


# --- asking SLURM


@dataclass(frozen=True)
class Answer:
    """What a command said; `error` is empty when it succeeded."""

    out: str
    error: str = ""


def ask(*command: str, text: str | None = None) -> Answer:
    """Run a SLURM command, away from the job that this process may itself be part of."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=ANSWER_S,
            env=_outside_any_job(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as err:
        said = f"no answer in {ANSWER_S} s" if isinstance(err, subprocess.TimeoutExpired) else err
        return Answer("", f"{command[0]}: {said}")
    if done.returncode:
        return Answer(done.stdout, last_line(done.stderr) or f"exit status {done.returncode}")
    return Answer(done.stdout.strip())


def _outside_any_job() -> dict[str, str]:
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in os.environ.items() if k in kept or not k.startswith("SLURM_")}


def client_version() -> str:
    """Return the version of the SLURM client here, or an empty string when there is none."""
    return ask("sinfo", "--version").out if shutil.which("sinfo") else ""


# --- checks without a job


def check_client() -> Check:
    missing = [name for name in CLIENTS if not shutil.which(name)]
    remedy = "run this on a login node, or load the site's SLURM module"
    if missing:
        return Check("SLURM client", False, f"not on the PATH: {', '.join(missing)}", remedy)
    return Check("SLURM client", True, client_version())


@dataclass(frozen=True)
class Node:
    """A node of the partition, as sinfo tells it."""

    name: str
    state: str
    gres: str

    @property
    def usable(self) -> bool:
        return self.state.rstrip(SLEEPING_OR_PLANNED) in USABLE

    @property
    def gpus(self) -> int:
        """GPUs in a text such as gpu:a100:4(S:0-1),gpu:2."""
        return self.gpus_of(None)

    def gpus_of(self, kind: str | None) -> int:
        """Return the GPUs of a kind (--gres=gpu:KIND:1), or of every one."""
        found = re.findall(r"\bgpu(?::([^:,(]*[A-Za-z][^:,(]*))?:(\d+)", self.gres)
        return sum(int(count) for name, count in found if kind in (None, name))


def check_partition(question: Question) -> tuple[Check, list[Node]]:
    """Return whether enough nodes of the partition take jobs, and those nodes."""
    where = ("-p", question.partition) if question.partition else ()
    answer = ask("sinfo", "-h", "-N", *where, "-o", "%N|%T|%G")
    name = f"partition {question.partition}" if question.partition else "partitions"
    if answer.error:
        remedy = "slurmctld cannot be reached: check SLURM_CONF and the network of this machine"
        return Check(name, False, answer.error, remedy), []
    rows = (line.split("|") for line in answer.out.splitlines())
    nodes = list({row[0]: Node(*row) for row in rows if len(row) == 3}.values())
    usable = [node for node in nodes if node.usable]
    found = f"{len(usable)} of {len(nodes)} nodes take jobs"
    if not nodes:
        known = sorted(set(ask("sinfo", "-h", "-o", "%R").out.split()))
        return Check(name, False, "has no nodes", f"choose one of: {', '.join(known)}"), []
    if len(usable) < question.nodes:
        states = Counter(node.state for node in nodes)
        found += f" ({', '.join(f'{n} {state}' for state, n in sorted(states.items()))})"
        remedy = "give fewer nodes=, or ask the site why they are out ('sinfo -R' tells reasons)"
        return Check(name, False, found, remedy), usable
    return Check(name, True, found), usable


def check_accounting() -> Check:
    if not shutil.which("sacct"):
        return Check("sacct", True, "not installed: states come from squeue and scontrol")
    answer = ask("sacct", "-n", "-X", "-S", "now-1hour", "-o", "JobID")
    if answer.error:
        return Check("sacct", True, f"{answer.error}: states come from squeue and scontrol")
    return Check("sacct", True, "answers")


def check_gres(question: Question, nodes: Sequence[Node]) -> Check:
    kind = question.site.gpu_type
    per_node = Counter(node.gpus_of(kind) for node in nodes)
    found = ", ".join(f"{n} nodes with {gpus}" for gpus, n in sorted(per_node.items()))
    found += f" of {kind}" if kind else ""
    enough = sum(n for gpus, n in per_node.items() if gpus >= question.gpus_per_node)
    remedy = "give a smaller gpus_per_node=, fewer nodes=, or another partition="
    if kind:
        listed = ", ".join(sorted({node.gres for node in nodes}))
        remedy += f", or a cluster.gpu_type that is there: {listed}"
    return Check("GPUs of the partition", enough >= question.nodes, found, remedy)


@contextlib.contextmanager
def probe_folder(question: Question) -> Iterator[Path]:
    """Yield a folder on the file system in question; it goes with the block."""
    shared = Path(question.shared).resolve()
    folder = Path(tempfile.mkdtemp(prefix=".dlfd-doctor-", dir=shared))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_folder(folder: Path) -> Check:
    """Write, rename and lock a file from this machine."""
    name = "folder from here"
    try:
        for word in ("one", "two"):
            write_text(folder / "here", word)
        if (folder / "here").read_text(encoding="utf-8") != "two":
            return Check(name, False, f"{folder.parent}: a renamed file is read as it was before",
                         "choose another file system")  # fmt: skip
    except OSError as err:
        return Check(name, False, f"{folder.parent}: {err.strerror}", "choose another shared=DIR")
    try:
        with (folder / "here").open("a") as file:
            take(file.fileno())
    except OSError as err:
        return Check(name, False, f"{folder.parent}: no locks ({err.strerror})", LOCK_REMEDY)
    return Check(name, True, f"{folder.parent}: writes, renames, locks")


# --- the probe job


def probe_script(question: Question, folder: Path) -> str:
    """Return the batch script of the probe job."""
    return _executor(question, folder).text(_command(question, folder))


def _command(question: Question, folder: Path) -> str:
    """Return what srun starts on each node, in the shell's words."""
    words = python_words("launch.doctor.probe", question.python)
    return shlex.join([*question.site.prefix, *words, str(folder)])


def _executor(question: Question, folder: Path) -> Executor:
    """Return the executor that submits the probe job as it does the jobs of a campaign."""
    from ..execute.executor import Executor

    parameters = _parameters(question)
    texts = [_command(question, folder), *texts_of(parameters)]
    refuse_control_characters("The probe job", texts)
    executor = Executor(folder)
    executor.update_parameters(**parameters, setup=list(_setup(question, folder)))
    return executor


def _parameters(question: Question) -> dict[str, Any]:
    """Return the parameters of submitit's SlurmExecutor, but for the lines of shell."""
    given = {name: getattr(question, name) or None for name in ("partition", "account", "qos")}
    site, number = replace(question.site, **given), question.gpus_per_node
    # The script writes its output itself: of a folder that the node lacks SLURM would only say that
    # the job failed.
    options = {"output": "/dev/null", "no-requeue": True, "chdir": "/"}
    devices: dict[str, Any] = gpus(site, number, per_task=number) if number else {}
    if number and site.gpus == "none":
        devices = {"gpus_per_node": number}
    return {
        "job_name": "dlfd-doctor", "nodes": question.nodes, "ntasks_per_node": 1, "time": 5,
        **place(site), "mem": memory(site), **devices, "wckey": None, "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=0", "--wait=60", *site.srun_args],
        "additional_parameters": options | further_options(site),
    }  # fmt: skip


def _setup(question: Question, folder: Path) -> Iterator[str]:
    where, python = shlex.quote(str(folder)), shlex.quote(question.python)
    yield f"cd {where} || exit {NO_FOLDER}"
    yield f"exec > job.out 2>&1 || exit {NO_FOLDER}"
    yield from question.site.setup
    if not question.site.prefix:  # in a container there may be an interpreter that the node lacks
        yield f"command -v {python} || exit {NO_PYTHON}"
    # The text itself: the nodes may not see the folder of the package.
    yield (resource_dir("slurm") / "lib" / "rendezvous.sh").read_text(encoding="utf-8").strip()
    yield f"export OMP_NUM_THREADS=1 {SAFE_PATH}=1"


@dataclass(frozen=True)
class Ended:
    """How the probe job ended: the last state that SLURM told, its reason, the script's status."""

    job: str
    state: str
    reason: str
    status: int
    seconds: float


def run_probe(question: Question, folder: Path) -> Ended | Check:
    """Submit the probe job and wait for its end; a Check says why there is none."""
    try:
        job = _executor(question, folder).submit_command(_command(question, folder))
    except SchedulerError as err:
        remedy = "correct partition=, account= or qos=, or ask the site what you may use"
        if question.site != ClusterConfig():
            remedy = (
                "correct the cluster's partition, account, qos, constraint, gpus, gpu_type or "
                "options (configs/cluster, or cluster.KEY=), or ask the site what you may use"
            )
        return Check("probe job", False, str(err), remedy)
    start = time.monotonic()
    ended = Ended(job, "", "", 0, 0.0)
    try:
        while ended.state not in ENDED and ended.seconds < question.wait_s:
            time.sleep(0.3)
            ended = _job_state(job, time.monotonic() - start)
    finally:
        if ended.state not in ENDED:
            ask("scancel", job)
    return ended


def _job_state(job: str, seconds: float) -> Ended:
    told = ask("scontrol", "show", "job", "-o", job).out

    def value(name: str) -> str:
        match = re.search(rf"\b{name}=(\S*)", told)
        return match[1] if match else ""

    status = value("ExitCode").partition(":")[0]
    return Ended(job, value("JobState"), value("Reason"), int(status or 0), seconds)


REASONS = {
    "Resources": "the nodes are busy: wait, or give a larger wait_s=",
    "Priority": "other jobs come first: wait, or give a larger wait_s=",
    "PartitionNodeLimit": "the partition allows fewer nodes: give fewer nodes=",
    "PartitionTimeLimit": "the partition allows less than 5 minutes: use another one",
    "ReqNodeNotAvail": "the nodes are down or reserved: see 'sinfo -R' and 'scontrol show res'",
    "InvalidAccount": "the account may not run here: give account=",
    "InvalidQOS": "the QOS may not run here: give qos=",
}


def check_job(ended: Ended, question: Question) -> Check:
    """Return whether the job ran at all."""
    name = "probe job"
    if ended.state not in ENDED:
        remedy = REASONS.get(ended.reason.split(",")[0], "see 'JOB REASON CODES' in 'man squeue'")
        if ended.state == "RUNNING":
            remedy = "a node hangs: look for it in 'sinfo -R', or give a larger wait_s="
        found = f"{ended.state.lower()} ({ended.reason}) for {question.wait_s} s; cancelled"
        return Check(name, False, found, remedy)
    if ended.status == NO_FOLDER:
        remedy = "give shared=DIR on a file system that login node and nodes share"
        found = f"the first node cannot write to {Path(question.shared).resolve()}"
        return Check(name, False, found, remedy)
    if ended.status == NO_PYTHON:
        remedy = "install dlfd-dist on a shared file system, or give python=PATH of the nodes"
        return Check(name, False, f"the first node has no {question.python}", remedy)
    ran = ended.state in ("COMPLETED", "FAILED")
    found = f"job {ended.job} {ended.state.lower()} after {ended.seconds:.1f} s"
    return Check(name, ran, found, f"see 'sacct -j {ended.job}' for what became of it")


# --- all of it

PLAN = (
    "SLURM client", "partition", "sacct", "GPUs of the partition (with gpus_per_node=)",
    "folder from here (a file in shared=, removed at the end)", "probe job of one task per node",
    "python on the nodes", "rendezvous over gloo, and NCCL where there are GPUs",
    "GPUs on the nodes", "clocks", "folder and locks between nodes",
)  # fmt: skip


def check_slurm(question: Question) -> list[Check]:
    """Return all checks; those that need what an earlier one found missing are left out."""
    checks = [check_client()]
    if not checks[0].ok:
        return checks
    partition, nodes = check_partition(question)
    checks += [partition, check_accounting()]
    if question.gpus_per_node:
        checks.append(check_gres(question, nodes))
    try:
        with probe_folder(question) as folder:
            checks.append(check_folder(folder))
            if all(check.ok for check in checks):
                checks += _check_with_job(question, folder)
    except OSError as err:
        where = Path(question.shared).resolve()
        remedy = "give shared=DIR, a folder that you may write to"
        checks.append(Check("folder from here", False, f"{where}: {err.strerror}", remedy))
    return checks


def _check_with_job(question: Question, folder: Path) -> list[Check]:
    ended = run_probe(question, folder)
    if isinstance(ended, Check):
        return [ended]
    check = check_job(ended, question)
    if not check.ok:
        return [check]
    findings = _await_findings(folder, question.nodes)
    said = output_of(folder)
    return [check, *check_nodes(findings, question.nodes, question.gpus_per_node, said)]


def output_of(folder: Path) -> str:
    """Return what the script of the probe job said, and then what its tasks did."""
    files = [*folder.glob("job.out"), *sorted(folder.glob("*_log.out"))]
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def _await_findings(folder: Path, nodes: int) -> list[NodeFinding]:
    """Return what the nodes wrote, as soon as all have."""
    end = time.monotonic() + PATIENCE_S
    while True:
        findings = read_findings(folder)
        if len(findings) >= nodes or time.monotonic() > end:
            return findings
        os.listdir(folder)
        time.sleep(0.5)
