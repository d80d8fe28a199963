"""The shape of a job: from the ranks of a run to nodes and tasks per node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from dlfd_dist.config import ClusterConfig, DLFDConfig, JobConfig
from dlfd_dist.errors import ConfigError

from .scaling import Step, useful_ranks
from .size import ModelSize, known_size

EXACT_S_PER_PAIR = 1.2e-7
"""Seconds of an exact plan per entry of the cost matrix (DESIGN 4: 29 ms at 512, 137 at 1024)."""
IMAGES_PER_RANK = 8
"""With fewer images of the global batch for each, a further rank waits more than it helps."""


@dataclass(frozen=True)
class LaunchSpec:
    """The shape of an allocation and what runs on it."""

    nodes: int = 1
    tasks_per_node: int = 1
    packed: bool = False
    """Several runs, each on one rank, instead of one run on all ranks."""
    why: str = field(default="", compare=False)
    """Why the planner chose this shape."""
    ray: bool = False
    """One process on each node, which starts Ray there; the tasks are the room that Ray has."""

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def ranks_per_run(self) -> int:
        return 1 if self.packed else self.ranks


def asked_shape(cluster: ClusterConfig) -> tuple[int, int] | None:
    """Return the nodes and tasks per node that a user asked for; None if that is left to us."""
    given = (cluster.ranks, cluster.nodes, cluster.tasks_per_node)
    if given == (None, None, None):
        return None
    nodes, tasks = cluster.nodes, cluster.tasks_per_node
    if cluster.ranks is not None:
        tasks = tasks or min(cluster.max_tasks_per_node, math.ceil(cluster.ranks / (nodes or 1)))
        nodes = nodes or math.ceil(cluster.ranks / tasks)
        if nodes * tasks != cluster.ranks:
            raise ConfigError(
                f"cluster.ranks={cluster.ranks} is not {nodes} nodes x {tasks} tasks, and every "
                "node takes equally many: give cluster.nodes or cluster.tasks_per_node, or other "
                "ranks."
            )
    nodes, tasks = nodes or 1, tasks or 1
    if tasks > cluster.max_tasks_per_node:
        raise ConfigError(
            f"cluster.tasks_per_node={tasks} is more than the {cluster.max_tasks_per_node} that a "
            "node takes (cluster.max_tasks_per_node): use more nodes."
        )
    return nodes, tasks


def choose_spec(
    cluster: ClusterConfig, config: JobConfig, *, minutes: float, num_runs: int,
    size: ModelSize | None = None,
) -> LaunchSpec:  # fmt: skip
    """Return the shape of runs like this run, with the reason.

    Parameters
    ----------
    minutes : the estimate for one such run on one rank
    num_runs : the number of such runs
    size : of its network; none: that of the table
    """
    size = size or known_size(config)
    spec = _chosen(cluster, config, minutes, num_runs, size)
    return replace(spec, why=f"{spec.why}; {size.note}") if size.note else spec


def _chosen(
    cluster: ClusterConfig, config: JobConfig, minutes: float, num_runs: int, size: ModelSize
) -> LaunchSpec:
    shape = asked_shape(cluster)
    took = f"a run takes about {minutes:.1f} min on one rank"
    if cluster.pack == "1" or (cluster.pack == "auto" and shape):
        nodes, tasks = shape or (1, 1)
        why = "cluster.pack=1" if cluster.pack == "1" else "this many ranks were asked for"
        batch = (config.method if config.verb == "unlearn" else config.train).global_batch_size
        if nodes * tasks > max(1, batch // IMAGES_PER_RANK):
            why += f", and a batch of {batch} has {batch / (nodes * tasks):.1f} images for each"
        return LaunchSpec(nodes, tasks, why=f"{_mode(nodes * tasks)}: {why}")
    tasks = shape[1] if shape else cluster.max_tasks_per_node
    if cluster.pack != "auto":
        tasks = min(tasks, int(cluster.pack), num_runs)
        return LaunchSpec(1, tasks, True, f"packed: cluster.pack={cluster.pack}")
    if minutes < cluster.pack_min and num_runs > 1:
        why = f"packed: {took}, less than cluster.pack_min={cluster.pack_min:g}"
        return LaunchSpec(1, min(tasks, num_runs), True, why)
    ranks = _useful_ranks(cluster, config, size)
    if ranks == 1 and min(tasks, num_runs) > 1:
        why = f"packed: {took}, and more ranks do not pay with this batch and model"
        return LaunchSpec(1, min(tasks, num_runs), True, why)
    if minutes < cluster.pack_min or ranks == 1:
        return LaunchSpec(why=f"one rank: {took}")
    why = f"{_mode(ranks)}: {took}, too long for one"
    if ranks < cluster.max_tasks_per_node:
        why += f"; more ranks do not pay with this batch and model (at most {ranks} of a node)"
    return LaunchSpec(1, ranks, why=why)


def _mode(ranks: int) -> str:
    return f"DDP on {ranks} ranks" if ranks > 1 else "one rank"


def _useful_ranks(cluster: ClusterConfig, config: JobConfig, size: ModelSize) -> int:
    """Return the ranks of one node that help a run along."""
    if config.verb == "unlearn" and config.method.name == "dlfd_official":
        return 1  # it repeats a single-process loop
    section = config.method if config.verb == "unlearn" else config.train
    limit = max(1, min(cluster.max_tasks_per_node, section.global_batch_size // IMAGES_PER_RANK))
    return useful_ranks(outer_step(cluster, config, size), limit)


def outer_step(cluster: ClusterConfig, config: JobConfig, size: ModelSize) -> Step:
    """Return a step of a run as the model of scaling sees it."""
    unlearns = config.verb == "unlearn"
    synthesises = unlearns and isinstance(config.method, DLFDConfig)
    batch = (config.method if unlearns else config.train).global_batch_size
    return Step(
        batch, config.synthesis.steps if synthesises else 0, size.width, size.parameters,
        cluster.images_per_s / size.cost, transport_s=EXACT_S_PER_PAIR * batch**2,
    )  # fmt: skip
