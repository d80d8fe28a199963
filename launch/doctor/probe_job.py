"""The probe job of dlfd doctor: one task on each of a few nodes (launch/doctor/probe.py)."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import ClusterConfig
from dlfd_dist.resources import resource_dir

from ..children import SAFE_PATH, python_words
from ..execute.batch import (
    further_options,
    gpus,
    memory,
    place,
    refuse_control_characters,
    texts_of,
)
from ..execute.slurm import SchedulerError, call, shown_jobs
from .check import Check
from .probe import NodeFinding, read_findings
from .question import Question

if TYPE_CHECKING:
    from ..execute.executor import Executor

ANSWER_S = 30
"""How long scancel may take."""
POLL_S = 0.3
PATIENCE_S = 5.0
"""How late a network file system may show here what the nodes wrote."""
NO_FOLDER, NO_PYTHON = 41, 42
"""Exit statuses of the probe job's script."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")


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
    named = ("partition", "account", "qos")
    given: dict[str, Any] = {name: getattr(question, name) or None for name in named}
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
    """The end of the probe job: SLURM's last state and reason, and the status of the script."""

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
            time.sleep(POLL_S)
            ended = _job_state(job, time.monotonic() - start)
    finally:
        if ended.state not in ENDED:
            with contextlib.suppress(SchedulerError):
                call(["scancel", job], timeout_s=ANSWER_S)
    return ended


def _job_state(job: str, seconds: float) -> Ended:
    fields: dict[str, str] = {}
    with contextlib.suppress(SchedulerError):
        fields = next(iter(shown_jobs(job)), {})
    status = fields.get("ExitCode", "").partition(":")[0]
    state, reason = fields.get("JobState", ""), fields.get("Reason", "")
    return Ended(job, state, reason, int(status or 0), seconds)


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
        finding = f"{ended.state.lower()} ({ended.reason}) for {question.wait_s} s; cancelled"
        return Check(name, False, finding, remedy)
    if ended.status == NO_FOLDER:
        remedy = "give shared=DIR on a file system that login node and nodes share"
        finding = f"the first node cannot write to {Path(question.shared).resolve()}"
        return Check(name, False, finding, remedy)
    if ended.status == NO_PYTHON:
        remedy = "install dlfd-dist on a shared file system, or give python=PATH of the nodes"
        return Check(name, False, f"the first node has no {question.python}", remedy)
    has_run = ended.state in ("COMPLETED", "FAILED")
    finding = f"job {ended.job} {ended.state.lower()} after {ended.seconds:.1f} s"
    return Check(name, has_run, finding, f"see 'sacct -j {ended.job}' for what became of it")


def output_of(folder: Path) -> str:
    """Return what the script of the probe job said, and then what its tasks did."""
    files = [*folder.glob("job.out"), *sorted(folder.glob("*_log.out"))]
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def await_findings(folder: Path, nodes: int) -> list[NodeFinding]:
    """Return what the nodes wrote, as soon as all have."""
    end = time.monotonic() + PATIENCE_S
    while True:
        findings = read_findings(folder)
        if len(findings) >= nodes or time.monotonic() > end:
            return findings
        os.listdir(folder)
        time.sleep(0.5)
