"""Who this process is among the ranks, and in which start of which job; only here are torchrun's or
Slurm's variables read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

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


def _integers(env: Mapping[str, str], *names: str) -> list[int]:
    try:
        return [int(env[name]) for name in names]
    except (KeyError, ValueError) as err:
        raise ConfigError(
            f"The launcher's environment is incomplete: {', '.join(names)} must all be numbers "
            f"({err}). Start ranks with torchrun or srun, or set runtime.world_size."
        ) from err


def rank_info(env: Mapping[str, str] = os.environ) -> RankInfo:
    """Return this process's place, from torchrun's variables, else those of a Slurm job step.

    A batch script's own shell has SLURM_PROCID too, but no step: only `srun` counts as a start.
    """
    if "RANK" in env and "WORLD_SIZE" in env:
        rank, local_rank, world, local_world = _integers(
            env, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
        )
        return RankInfo(rank, local_rank, world, local_world, rank // local_world, "torchrun")
    if "SLURM_STEP_ID" in env and env.get("SLURM_NTASKS", "1") != "1":
        rank, local_rank, world, node = _integers(
            env, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODEID"
        )
        return RankInfo(rank, local_rank, world, _tasks_on(env, node), node, "slurm")
    return RankInfo()


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
        return env["MASTER_ADDR"], int(env["MASTER_PORT"])
    if info.source == "slurm" and env.get("SLURM_STEP_NUM_NODES", "1") == "1":
        job, step, restart = (
            int(env.get(name, "0"))
            for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        )
        return "127.0.0.1", 20000 + (job * 31 + step * 7 + restart) % 12000
    raise ConfigError(
        "MASTER_ADDR and MASTER_PORT are not set: source slurm/lib/rendezvous.sh in the batch "
        "script before srun, or start the ranks with torchrun."
    )
