"""A batch job in submitit's words: its options for SLURM, its first and its last lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import ClusterConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.resources import resource_dir

from ..children import SAFE_PATH, python_words
from ..plan.shape import LaunchSpec

if TYPE_CHECKING:
    from .executor import Executor

RANKS_WAIT_S = 60
"""How long the ranks of a run may go on after one of them has ended."""


@dataclass(frozen=True)
class Waits:
    """The jobs that a job waits for, by id."""

    after_ok: Sequence[str] = ()
    """Jobs that must succeed."""
    after_any: Sequence[str] = ()
    """Jobs that must have ended, well or not."""
    by_task: bool = False
    """`after_ok` names arrays, and each task waits for the task of its own number."""

    @property
    def dependency(self) -> str | None:
        """The value of --dependency."""
        success = "aftercorr" if self.by_task else "afterok"
        kinds = [(success, self.after_ok), ("afterany", self.after_any)]
        return ",".join(f"{kind}:{':'.join(ids)}" for kind, ids in kinds if ids) or None


@dataclass(frozen=True)
class BatchJob:
    """One job, or one array of equal tasks."""

    folder: Path
    """Where submitit keeps the script, the pickles and the logs."""
    name: str
    """As squeue prints it."""
    title: str
    spec: LaunchSpec
    cluster: ClusterConfig
    array: str = ""
    """Numbers of the tasks, such as 0-3,5; empty: a plain job."""
    directory: str = "."
    """Where the job starts: relative paths of the settings are read from there."""
    code: Path | None = None
    """Where the packages are, for a checkout or a snapshot; None: they are installed."""
    waits: Waits = field(default_factory=Waits)
    output: Path | None = None
    """The log of the batch script; None: that of rank 0."""
    exports: Sequence[str] = ()
    """Further shell assignments for the environment of the ranks."""

    def executor(self) -> Executor:
        """Return the executor that submits this job; ConfigError for what no script may hold."""
        from .executor import Executor

        self._refuse_what_breaks_a_script()
        restarts = self.cluster.max_restarts
        executor = Executor(self.folder, max_num_timeout=restarts, python=self.python)
        executor.update_parameters(**self.parameters)
        if self.array:
            # submitit names the logs of an array by this; --array itself is among our options.
            executor.parameters["map_count"] = 1
        return executor

    @property
    def python(self) -> str:
        """The command that starts Python on each rank, in the shell's words."""
        return shlex.join([*self._launcher, *python_words("", self.cluster.python)[:-2]])

    def module(self, name: str, *arguments: str) -> str:
        """Return the command that runs a module on each rank, in the shell's words."""
        return shlex.join([*self._launcher, *python_words(name, self.cluster.python), *arguments])

    @property
    def _launcher(self) -> list[str]:
        """The container and, for Ray, the process that starts Ray on each node."""
        cluster = self.cluster
        ray = python_words("launch.search.node", cluster.python) if self.spec.ray else []
        return [*cluster.prefix, *ray]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of submitit's SlurmExecutor."""
        cluster, spec = self.cluster, self.spec
        return {
            "job_name": self.name, "nodes": spec.nodes, "ntasks_per_node": spec.tasks_per_node,
            "cpus_per_task": cluster.cpus_per_task, "mem": memory(cluster),
            "time": cluster.time_min, "signal_delay_s": cluster.signal_s, "wckey": None,
            **place(cluster), **gpus(cluster, spec.tasks_per_node),
            "dependency": self.waits.dependency, "stderr_to_stdout": True,
            "srun_args": list(self._srun_args()), "setup": list(self._setup()),
            "teardown": [self._teardown], "additional_parameters": self._options(),
        }  # fmt: skip

    def _options(self) -> dict[str, Any]:
        """Return the options of sbatch that submitit has no name for."""
        options: dict[str, Any] = {"requeue": True, "chdir": self.directory}
        if self.array:
            limit = f"%{self.cluster.max_running}" if self.cluster.max_running else ""
            options["array"] = f"{self.array}{limit}"
        if self.waits.after_ok:
            # A job whose parent failed is not left pending.
            options["kill-on-invalid-dep"] = "yes"
        if self.output is not None:
            options["output"] = str(self.output)
        return options | further_options(self.cluster)

    def _srun_args(self) -> Iterator[str]:
        cluster, spec = self.cluster, self.spec
        # Killing the others at once when a rank ends would turn the 75 of ranks that stop a moment
        # apart into 143. The runs of a pack have nothing to do with each other.
        yield "--kill-on-bad-exit=0"
        yield f"--wait={0 if spec.packed else RANKS_WAIT_S}"
        if spec.ray:
            yield f"--ntasks={spec.nodes}"
            yield "--ntasks-per-node=1"
            yield f"--cpus-per-task={cluster.cpus_per_task * spec.tasks_per_node}"
            if cluster.gpus == "per_task":
                yield f"--gpus-per-task={spec.tasks_per_node}"
        else:
            yield f"--cpus-per-task={cluster.cpus_per_task}"
        yield from cluster.srun_args

    def _setup(self) -> Iterator[str]:
        cluster = self.cluster
        yield f"# {self.title}"
        if self.spec.why:
            yield f"# {self.spec.why}"
        yield "set -u"
        yield from cluster.setup
        for library in (
            "python_path",
            "rendezvous",
            "requeue",
            *(["ray"] if self.spec.ray else []),
        ):
            yield f". {shlex.quote(str(self._slurm_dir / 'lib' / library))}.sh"
        # Modules are those of the code, not files of their name where the job starts.
        yield f"python_path {shlex.quote(str(self.code))}" if self.code else "python_path"
        yield f"export {SAFE_PATH}=1"
        yield f"export OMP_NUM_THREADS={cluster.cpus_per_task} OMP_WAIT_POLICY=PASSIVE"
        yield f"export DLFD_MAX_RESTARTS={cluster.max_restarts}"
        yield from (f"export {assignment}" for assignment in self.exports)

    @property
    def _teardown(self) -> str:
        """Whether the job comes back is decided outside of the container and of Python."""
        return 'requeue_or_exit "$(ray_status $?)"' if self.spec.ray else "requeue_or_exit $?"

    @property
    def _slurm_dir(self) -> Path:
        if self.cluster.snapshot and self.code is not None:
            return self.code / "slurm"
        return resource_dir("slurm")

    def _refuse_what_breaks_a_script(self) -> None:
        refuse_control_characters(f"The job {self.name!r}", self._pieces())
        refuse_patterns(self.folder)

    def _pieces(self) -> Iterator[str]:
        """Yield every text of the script but cluster.setup, which is shell by its nature."""
        yield from (self.title, self.spec.why, self.array, str(self.folder), str(self.code))
        yield self.python
        yield from texts_of(self.parameters)


def texts_of(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield what submitit's parameters put into the options of a script."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from value
            yield from texts_of(value)
        elif name != "setup":
            yield from value if isinstance(value, list) else [str(value)]


def refuse_control_characters(what: str, texts: Iterable[str]) -> None:
    """Raise ConfigError for a newline or the like: it would end a #SBATCH comment, and the shell
    would run what comes after."""
    for text in texts:
        if any(not char.isprintable() for char in text):
            raise ConfigError(
                f"{what} has a control character in {text!r}: paths, names and options of a batch "
                "script are one line of printable characters."
            )


def refuse_patterns(folder: Path) -> None:
    """Raise ConfigError for a folder whose name SLURM and submitit would read as a pattern."""
    if re.search(r"[%\\]", str(folder)):
        raise ConfigError(
            f"{folder} has a '%' or a backslash, which SLURM reads as a pattern in the name of a "
            "log: choose another run.dir."
        )


def place(cluster: ClusterConfig) -> dict[str, str]:
    """Return the parameters that say where a job may run."""
    names = ("partition", "account", "qos", "constraint")
    return {name: getattr(cluster, name) for name in names if getattr(cluster, name) is not None}


def gpus(cluster: ClusterConfig, number: int, *, per_task: int = 1) -> dict[str, str]:
    """Return the parameter that asks for GPUs.

    Parameters
    ----------
    number : on each node, where a site hands them out by node
    per_task : where it hands them out by task
    """
    kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
    if cluster.gpus == "gres":
        return {"gres": f"gpu:{kind}{number}"}
    if cluster.gpus == "per_task":
        return {"gpus_per_task": f"{kind}{per_task}"}
    return {}


def memory(cluster: ClusterConfig) -> str | None:
    """Return the memory of a node as sbatch takes it; None: the partition's default."""
    return None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}M"


def further_options(cluster: ClusterConfig) -> dict[str, Any]:
    """Return cluster.options by name; an option without a value is True."""
    options: dict[str, Any] = {}
    for option in cluster.options:
        match = re.fullmatch(r"--(\w[\w-]*)(?:[= ](.*))?", option, re.DOTALL)
        if match is None:
            raise ConfigError(
                f"cluster.options: {option!r} is no option of sbatch: write --NAME or --NAME=VALUE."
            )
        options[match[1]] = True if match[2] is None else match[2]
    return options
