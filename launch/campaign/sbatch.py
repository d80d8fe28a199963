"""The batch script of a job, as text. The same campaign always gives the same text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.resources import resource_dir

from ..children import SAFE_PATH, python_words
from .spec import LaunchSpec

RANKS_WAIT_S = 60
"""How long the ranks of a run may go on after one of them has ended."""


@dataclass(frozen=True)
class Script:
    """What a batch script is made of."""

    campaign: Path
    campaign_name: str
    job: str
    title: str
    spec: LaunchSpec
    cluster: ClusterConfig
    array: str = ""
    """Numbers of the tasks, such as 0-3,5; empty: a plain job."""
    directory: str = "."
    """Where the job starts: relative paths of the settings are read from there."""
    code: Path | None = None
    """Where the packages are, for a checkout or a snapshot; None: they are installed."""
    output: Path | None = None
    """None: beside the script, named after the job."""

    @property
    def job_name(self) -> str:
        return f"dlfd-{self.campaign_name}-{self.job}"

    @property
    def log(self) -> Path:
        """Where SLURM writes what the job says; %a is the task of an array."""
        task = "_%a" if self.array else ""
        return self.output or self.campaign / "jobs" / f"{self.job}{task}.out"

    @property
    def options(self) -> list[str]:
        return list(_options(self))

    def text(self) -> str:
        """Return the script; ConfigError for a control character in what it is made of."""
        refuse_control_characters(f"The job {self.job_name!r}", _pieces(self))
        head = [
            "#!/bin/bash",
            f"# {self.title}",
            f"# {self.spec.why}" if self.spec.why else "#",
            *(f"#SBATCH {sbatch_word(option)}" for option in self.options),
        ]
        return "\n".join([*head, *_body(self)]) + "\n"


def _pieces(script: Script) -> Iterator[str]:
    """Yield every text of a script but cluster.setup, which is shell by its nature."""
    yield from (script.title, script.spec.why, script.job, str(script.campaign), str(script.code))
    yield from script.options
    yield from (*script.cluster.srun_args, *script.cluster.prefix, str(script.cluster.python))


def refuse_control_characters(what: str, texts: Iterable[str]) -> None:
    """Raise ConfigError for a newline or the like: it would end a #SBATCH comment, and the shell
    would run what follows."""
    for text in texts:
        if any(not char.isprintable() for char in text):
            raise ConfigError(
                f"{what} has a control character in {text!r}: options, paths and names of a batch "
                "script are one line of printable characters."
            )


def _options(script: Script) -> Iterator[str]:
    cluster, spec = script.cluster, script.spec
    yield f"--job-name={script.job_name}"
    yield from place_options(cluster)
    yield f"--nodes={spec.nodes}"
    yield f"--ntasks-per-node={spec.tasks_per_node}"
    yield f"--cpus-per-task={cluster.cpus_per_task}"
    if cluster.mem_gb is not None:
        yield f"--mem={round(cluster.mem_gb * 1024)}M"
    yield from gpu_options(cluster, spec.tasks_per_node)
    yield f"--time={cluster.time_min}"
    if script.array:
        limit = f"%{cluster.max_running}" if cluster.max_running else ""
        yield f"--array={script.array}{limit}"
    yield "--requeue"
    # To the job steps, not to the batch shell (no B:): the ranks save and exit 75.
    yield f"--signal=USR2@{cluster.signal_s}"
    yield "--open-mode=append"
    yield f"--output={script.log}"
    yield f"--chdir={script.directory}"
    yield from cluster.options


def place_options(cluster: ClusterConfig) -> Iterator[str]:
    """Yield the options that say where a job may run."""
    for name in ("partition", "account", "qos", "constraint"):
        if getattr(cluster, name) is not None:
            yield f"--{name}={getattr(cluster, name)}"


def gpu_options(cluster: ClusterConfig, num: int, *, per_task: int = 1) -> Iterator[str]:
    """Yield the option that asks for GPUs.

    Parameters
    ----------
    num : on each node, where a site hands them out by node
    per_task : where it hands them out by task
    """
    kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
    if cluster.gpus == "gres":
        yield f"--gres=gpu:{kind}{num}"
    elif cluster.gpus == "per_task":
        yield f"--gpus-per-task={kind}{per_task}"


def sbatch_word(option: str) -> str:
    """Return an option as a #SBATCH line takes it: values with blanks in quotes."""
    name, equals, value = option.partition("=")
    if re.search(r"[\s#\"'\\]", value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return name + equals + value


def _body(script: Script) -> Iterator[str]:
    cluster = script.cluster
    yield "set -u"
    yield from cluster.setup
    if script.code is not None:
        yield f'export PYTHONPATH={shlex.quote(str(script.code))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    # Modules are those of the code, not files of their name where the job starts.
    yield f"export {SAFE_PATH}=1"
    yield f"export OMP_NUM_THREADS={cluster.cpus_per_task} OMP_WAIT_POLICY=PASSIVE"
    lib = _slurm_dir(script) / "lib"
    for name in ("rendezvous.sh", "requeue.sh"):
        yield f". {shlex.quote(str(lib / name))}"
    yield f"export DLFD_MAX_RESTARTS={cluster.max_restarts}"
    if script.spec.ray:
        yield from _ray_body(script)
        return
    # Killing the others at once when a rank ends would turn the 75 of ranks that stop a moment
    # apart into 143. The runs of a pack have nothing to do with each other.
    words = [
        "srun", "--kill-on-bad-exit=0", f"--wait={0 if script.spec.packed else RANKS_WAIT_S}",
        f"--cpus-per-task={cluster.cpus_per_task}",
        *cluster.srun_args, *cluster.prefix,
        *python_words("launch.campaign.task", cluster.python), str(script.campaign), script.job,
    ]  # fmt: skip
    yield shlex.join(words) + ' "${SLURM_ARRAY_TASK_ID:-0}"'
    yield "requeue_or_exit $?"


def _ray_body(script: Script) -> Iterator[str]:
    """Yield the start of one launch.search.node on each node, whatever tasks the job has there."""
    cluster, spec = script.cluster, script.spec
    yield f". {shlex.quote(str(_slurm_dir(script) / 'lib' / 'ray.sh'))}"
    gpus = [f"--gpus-per-task={spec.tasks_per_node}"] if cluster.gpus == "per_task" else []
    words = [
        "srun", "--kill-on-bad-exit=0", f"--wait={RANKS_WAIT_S}", f"--ntasks={spec.nodes}",
        "--ntasks-per-node=1", f"--cpus-per-task={cluster.cpus_per_task * spec.tasks_per_node}",
        *gpus, *cluster.srun_args, *cluster.prefix,
        *python_words("launch.search.node", cluster.python),
        *python_words("launch.campaign.task", cluster.python), str(script.campaign), script.job,
    ]  # fmt: skip
    yield shlex.join(words)
    yield 'requeue_or_exit "$(ray_status $?)"'


def _slurm_dir(script: Script) -> Path:
    if script.cluster.snapshot and script.code is not None:
        return script.code / "slurm"
    return resource_dir("slurm")


def dependency(
    after_ok: Sequence[str] = (), after_any: Sequence[str] = (), *, by_task: bool = False
) -> list[str]:
    """Return the options that make a job wait; one whose parent failed is not left pending.

    Parameters
    ----------
    after_ok : jobs that must succeed; with `by_task` arrays, and each task waits for its number
    after_any : jobs that must have ended
    """
    found = [("aftercorr" if by_task else "afterok", after_ok), ("afterany", after_any)]
    words = [f"{word}:{':'.join(ids)}" for word, ids in found if ids]
    options = [f"--dependency={','.join(words)}"] if words else []
    return [*options, "--kill-on-invalid-dep=yes"] if after_ok else options
