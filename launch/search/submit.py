"""`dlfd submit search`: an allocation with Ray on its nodes. run.dir holds campaign and search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from dlfd_dist.config import ClusterConfig
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.plain import counted

from ..plan.cost import rank_seconds
from ..plan.runs import Plan, Run, digest
from ..plan.shape import LaunchSpec, asked_shape
from ..plan.size import size_of
from .cluster import Room, gpus_per_rank, require_ray
from .identity import check_same
from .plan import SearchPlan, check_reference, make_plan, rows_of


def search_campaign(words: Sequence[str], cluster: ClusterConfig) -> Plan:
    """Return the job of a search; nothing is written, and everything it names is checked."""
    plan = make_plan(words)
    rows = rows_of(plan, draw=False)
    check_enough(plan.config, rows, plan.search.workers_per_trial)
    check_reference(plan, rows)
    check_same(plan, rows)
    size = size_of(plan.config, rows)
    run = _run(plan, cluster, rank_seconds(plan.config, rows, cluster, size), size.note)
    return Plan(
        plan.out, "search", list(words), cluster, [run], "search", {"search": plan.values()}
    )


def _run(plan: SearchPlan, cluster: ClusterConfig, seconds: float, note: str) -> Run:
    """Return the search as a run.

    Parameters
    ----------
    seconds : the estimate for a trial on one rank
    note : what the plan says of the network
    """
    require_ray()
    spec = _allocation(cluster)
    spec = replace(spec, why=f"{spec.why}; {note}") if note else spec
    ranks, search = spec.ranks, plan.search
    gpus = 0 if cluster.gpus == "none" else ranks
    room = Room(ranks * cluster.cpus_per_task, gpus, spec.nodes)
    if cluster.kind == "slurm":
        room.check(search, gpus_per_rank(plan, room))
    num = search.num_samples + (search.replicate + 1) * search.replicate_seeds
    key = digest(json.dumps(["search", str(plan.out)]))
    return Run(
        "search", "search", plan.config.seed, plan.config, key=key, spec=spec,
        directory=str(plan.out), rank_seconds=seconds * num,
    )  # fmt: skip


def _allocation(cluster: ClusterConfig) -> LaunchSpec:
    """Return the nodes; all tasks that a node takes are cores and GPUs of its Ray."""
    if cluster.kind == "local":
        return LaunchSpec(why="on this machine, with all its cores")
    nodes, tasks = asked_shape(cluster) or (1, 0)
    if cluster.tasks_per_node is None and cluster.ranks is None:
        tasks = cluster.max_tasks_per_node
    room = "cores" if cluster.gpus == "none" else "GPUs"
    return LaunchSpec(
        nodes, tasks, ray=True, why=f"Ray on {counted(nodes, 'node')}, trials on their {room}"
    )
