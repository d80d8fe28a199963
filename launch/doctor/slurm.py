"""dlfd doctor cluster=NAME (or slurm): what a cluster can do, by its clients and one tiny job."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlfd_dist.locks import take
from dlfd_dist.plain import counted
from dlfd_dist.run_dir import write_text

from ..execute.slurm import SchedulerError, call
from .check import Check
from .nodes import LOCK_REMEDY, check_nodes
from .probe_job import await_findings, check_job, output_of, run_probe
from .question import Question

CLIENTS = ("sinfo", "sbatch", "squeue", "scontrol", "srun", "scancel")
ANSWER_S = 30
"""How long a SLURM command may take."""
USABLE = ("idle", "mixed", "allocated", "completing", "planned")
"""States of a node that takes jobs; a '*' behind the state: it does not answer."""
SLEEPING_OR_PLANNED = "~#%+-"
"""Signs behind a state that do not keep a node from taking jobs."""


# --- asking SLURM


def ask(*command: str) -> tuple[str, str]:
    """Return what a SLURM command prints and, in its own words, why it failed; one is empty.

    It runs away from the job that this process may itself be part of.
    """
    try:
        return call(command, timeout_s=ANSWER_S).strip(), ""
    except SchedulerError as err:
        return "", err.words


# --- checks without a job


def check_client() -> Check:
    missing = [name for name in CLIENTS if not shutil.which(name)]
    remedy = "run this on a login node, or load the site's SLURM module"
    if missing:
        return Check("SLURM client", False, f"not on the PATH: {', '.join(missing)}", remedy)
    version, error = ask("sinfo", "--version")
    if not version:
        why = error or "'sinfo --version' prints nothing"
        return Check("SLURM client", False, f"installed, and knows no cluster: {why}", remedy)
    return Check("SLURM client", True, version)


@dataclass(frozen=True)
class Node:
    """A node of the partition, as sinfo prints it."""

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
        """Return the number of GPUs of a kind (--gres=gpu:KIND:1), or of all kinds."""
        counts = re.findall(r"\bgpu(?::([^:,(]*[A-Za-z][^:,(]*))?:(\d+)", self.gres)
        return sum(int(count) for name, count in counts if kind in (None, name))


def check_partition(question: Question) -> tuple[Check, list[Node]]:
    """Return whether enough nodes of the partition take jobs, and those nodes."""
    where = ("-p", question.partition) if question.partition else ()
    answer, error = ask("sinfo", "-h", "-N", *where, "-o", "%N|%T|%G")
    name = f"partition {question.partition}" if question.partition else "partitions"
    if error:
        remedy = "slurmctld cannot be reached: check SLURM_CONF and the network of this machine"
        return Check(name, False, error, remedy), []
    rows = (line.split("|") for line in answer.splitlines())
    nodes = list({row[0]: Node(*row) for row in rows if len(row) == 3}.values())
    usable = [node for node in nodes if node.usable]
    finding = f"{len(usable)} of {len(nodes)} nodes take jobs"
    if not nodes:
        known = sorted(set(ask("sinfo", "-h", "-o", "%R")[0].split()))
        return Check(name, False, "has no nodes", f"choose one of: {', '.join(known)}"), []
    if len(usable) < question.nodes:
        states = Counter(node.state for node in nodes)
        finding += f" ({', '.join(f'{n} {state}' for state, n in sorted(states.items()))})"
        remedy = "give fewer nodes=, or ask the site why they are out ('sinfo -R' tells reasons)"
        return Check(name, False, finding, remedy), usable
    return Check(name, True, finding), usable


def check_accounting() -> Check:
    if not shutil.which("sacct"):
        return Check("sacct", True, "not installed: states come from squeue and scontrol")
    _, error = ask("sacct", "-n", "-X", "-S", "now-1hour", "-o", "JobID")
    if error:
        return Check("sacct", True, f"{error}: states come from squeue and scontrol")
    return Check("sacct", True, "answers")


def check_gres(question: Question, nodes: Sequence[Node]) -> Check:
    kind = question.site.gpu_type
    per_node = Counter(node.gpus_of(kind) for node in nodes)
    finding = ", ".join(f"{counted(n, 'node')} with {gpus}" for gpus, n in sorted(per_node.items()))
    finding += f" of {kind}" if kind else ""
    enough = sum(n for gpus, n in per_node.items() if gpus >= question.gpus_per_node)
    remedy = "give a smaller gpus_per_node=, fewer nodes=, or another partition="
    if kind:
        listed = ", ".join(sorted({node.gres for node in nodes}))
        remedy += f", or a cluster.gpu_type that is there: {listed}"
    return Check("GPUs of the partition", enough >= question.nodes, finding, remedy)


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


# --- all of it

PLAN = (
    "SLURM client", "partition", "sacct", "GPUs of the partition (with gpus_per_node=)",
    "folder from here (a file in shared=, removed at the end)", "probe job of one task per node",
    "python on the nodes", "rendezvous over gloo, and NCCL where there are GPUs",
    "GPUs on the nodes", "clocks", "folder and locks between nodes",
)  # fmt: skip


def check_slurm(question: Question) -> list[Check]:
    """Return all checks. Where a check fails, the checks that need it are left out."""
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
    findings = await_findings(folder, question.nodes)
    output = output_of(folder)
    return [check, *check_nodes(findings, question.nodes, question.gpus_per_node, output)]
