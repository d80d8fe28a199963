"""Who this process is among the ranks, and in which start of which job; only here are torchrun's or
Slurm's variables read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

WITHOUT_TORCHRUN = "env -u RANK -u WORLD_SIZE dlfd ..."
WITHOUT_SRUN = "env -u SLURM_STEP_ID dlfd ..., or srun --ntasks=1"
MPI = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
"""What mpirun tells its processes, by Open MPI and by the others."""

STARTS_BEFORE = "DLFD_STARTS_BEFORE"
"""Starts of this run before this one, where its starter counts them: a campaign does, over jobs."""


@dataclass(frozen=True)
class RankInfo:
    """This rank's place; `source` says who started it: torchrun, slurm or single."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    node_rank: int = 0
    source: str = "single"

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> str:
        """How a process that another launcher counts among its ranks is run alone, in words."""
        return {
            "torchrun": f"WORLD_SIZE={self.world_size} says so; to run alone: {WITHOUT_TORCHRUN}",
            "slurm": f"SLURM_NTASKS={self.world_size} says so; to run alone: {WITHOUT_SRUN}",
        }.get(self.source, "")


@dataclass(frozen=True)
class JobInfo:
    """The job that this process belongs to."""

    job_id: str | None = None
    """As squeue prints it, 123 or 123_4 for a task of an array; None outside SLURM."""
    restarts: int = 0
    """How often SLURM or torchrun started the job again."""
    starts_before: int | None = None
    """Starts of the run before this one, under other jobs too; None: nobody counts them."""
    num_nodes: int = 1

    @property
    def run_restarts(self) -> int:
        return self.restarts if self.starts_before is None else self.starts_before


def job_info(env: Mapping[str, str] = os.environ) -> JobInfo:
    """Return this process's job."""
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    job_id = f"{array}_{task}" if array else env.get("SLURM_JOB_ID")
    restarts = _count(env, "SLURM_RESTART_COUNT") or _count(env, "TORCHELASTIC_RESTART_COUNT")
    num_nodes = _count(env, "SLURM_NNODES") or 1
    return JobInfo(job_id, restarts or 0, _count(env, STARTS_BEFORE), num_nodes)


def _count(env: Mapping[str, str], name: str) -> int | None:
    return int(env[name]) if env.get(name, "").isdecimal() else None


def _integers(env: Mapping[str, str], alone: str, *names: str) -> list[int]:
    shown = ", ".join(f"{name}={env[name]}" if name in env else f"no {name}" for name in names)
    if not all(env.get(name, "").isdecimal() for name in names):
        raise ConfigError(
            f"The launcher's environment is incomplete: {', '.join(names)} must all be numbers, "
            f"and there are {shown}. To run alone: {alone}. Ranks are started by torchrun or srun."
        )
    return [int(env[name]) for name in names]


def _checked(info: RankInfo) -> RankInfo:
    """Return a place that there can be; ConfigError where it lies outside its world."""
    inside = info.rank < info.world_size
    if info.source == "torchrun":
        inside &= info.local_rank < info.local_world_size <= info.world_size
    if not inside:
        raise ConfigError(
            f"The launcher's environment contradicts itself: rank {info.rank} of "
            f"{info.world_size}, on its node rank {info.local_rank} of {info.local_world_size}: "
            f"{info.alone}. Ranks are started by torchrun or srun."
        )
    return info


def refuse_ranks(command: str) -> None:
    """Raise ConfigError where a command that starts ranks itself was started as one of several."""
    info = rank_info()
    if info.source != "single":
        raise ConfigError(
            f"'{command}' starts its runs itself: start it once, without torchrun or srun, and set "
            f"runtime.world_size for runs of several ranks ({info.alone})."
        )


def _refuse_mpi(env: Mapping[str, str]) -> None:
    """Refuse to be one of several processes of mpirun: each would do the whole run."""
    for rank, size in MPI:
        if env.get(size, "1") not in ("", "1"):
            raise ConfigError(
                f"mpirun started this process as number {env.get(rank, '?')} of {env[size]} "
                f"({size}), and each would do the whole run: start ranks with torchrun or srun, or "
                f"this process alone with env -u {size} dlfd ..."
            )


def rank_info(env: Mapping[str, str] = os.environ) -> RankInfo:
    """Return this process's place, from torchrun's variables, else those of a Slurm job step.

    A batch script's own shell has SLURM_PROCID too, but no step: only `srun` counts as a start.
    """
    if "RANK" in env and "WORLD_SIZE" in env and not _is_only_rank(env):
        rank, local_rank, world, local_world = _integers(
            env, WITHOUT_TORCHRUN, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
        )
        node = rank // max(1, local_world)
        return _checked(RankInfo(rank, local_rank, world, local_world, node, "torchrun"))
    if "SLURM_STEP_ID" in env and env.get("SLURM_NTASKS", "1") != "1":
        rank, local_rank, world, node = _integers(
            env, WITHOUT_SRUN, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODEID"
        )
        return _checked(RankInfo(rank, local_rank, world, _tasks_on(env, node), node, "slurm"))
    _refuse_mpi(env)
    return RankInfo()


def _is_only_rank(env: Mapping[str, str]) -> bool:
    """Whether the environment, as an image may set it, says: the only rank, and no more."""
    is_bare = "LOCAL_RANK" not in env and "LOCAL_WORLD_SIZE" not in env
    return is_bare and (env["RANK"], env["WORLD_SIZE"]) == ("0", "1")


def _tasks_on(env: Mapping[str, str], node: int) -> int:
    """Return the tasks of one node from SLURM_STEP_TASKS_PER_NODE, e.g. "2(x3),1"."""
    counts: list[int] = []
    for part in env.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    return counts[node] if node < len(counts) else 1


def rendezvous(info: RankInfo, env: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return the address and port where the ranks meet.

    torchrun sets both. Under srun slurm/lib/rendezvous.sh exports them; without it a run on one
    node still finds itself, with a port drawn from job, step and restart count.
    """
    if "MASTER_ADDR" in env and "MASTER_PORT" in env:
        port = _count(env, "MASTER_PORT")
        if port is None or not 0 < port < 65536:
            raise ConfigError(
                f"MASTER_PORT={env['MASTER_PORT']} is no port: give a number from 1 to 65535."
            )
        return env["MASTER_ADDR"], port
    if info.source == "slurm" and env.get("SLURM_STEP_NUM_NODES", "1") == "1":
        job, step, restart = (
            _count(env, name) or 0
            for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        )
        return "127.0.0.1", 20000 + (job * 31 + step * 7 + restart) % 12000
    raise ConfigError(
        "MASTER_ADDR and MASTER_PORT are not set: source slurm/lib/rendezvous.sh in the batch "
        "script before srun, or start the ranks with torchrun."
    )
