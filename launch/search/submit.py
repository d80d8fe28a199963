"""`dlfd submit search`: an allocation with Ray on its nodes, or an array with a trial to each task.

Either way run.dir holds campaign and search: the files are those of `dlfd search`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlfd_dist.config import ClusterConfig, to_dict
from dlfd_dist.jobs.context import check_enough

from ..campaign.cost import rank_seconds
from ..campaign.plan import Campaign, CampaignRun
from ..campaign.spec import LaunchSpec, asked_shape, choose_spec
from .cluster import Room, gpus_per_rank, require_ray
from .plan import SearchPlan, check_reference, check_same, make_plan, rows_of
from .trial import Point, Shared, identity_of


def search_campaign(words: Sequence[str], cluster: ClusterConfig) -> Campaign:
    """Return the jobs of a search; nothing is written, and everything it names is checked."""
    plan = make_plan(words)
    rows = rows_of(plan, draw=False)
    check_enough(plan.config, rows, plan.search.workers_per_trial)
    check_reference(plan, rows)
    inputs = check_same(plan, rows)["inputs"]
    seconds = rank_seconds(plan.config, rows, cluster)
    if plan.search.backend == "ray":
        runs = [_whole(plan, cluster, seconds)]
    else:
        runs = _trials(plan, cluster, seconds, inputs)
    return Campaign(plan.out, "search", list(words), cluster, runs)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:8]


def _config(plan: SearchPlan) -> dict[str, object]:
    return {**to_dict(plan.config), "verb": "search"}


# --- one allocation


def _whole(plan: SearchPlan, cluster: ClusterConfig, seconds: float) -> CampaignRun:
    require_ray()
    spec = _allocation(cluster)
    ranks, search = spec.ranks, plan.search
    gpus = 0 if cluster.gpus == "none" else ranks
    room = Room(ranks * cluster.cpus_per_task, gpus, spec.nodes)
    if cluster.kind == "slurm":
        room.check(search, gpus_per_rank(search, plan.config.runtime.device, room))
    num = search.num_samples + (search.replicate + 1) * search.replicate_seeds
    return CampaignRun(
        _key("search", plan.out), "search", "search", _config(plan), spec,
        directory=str(plan.out), rank_seconds=seconds * num,
    )  # fmt: skip


def _allocation(cluster: ClusterConfig) -> LaunchSpec:
    """Return the nodes; all tasks that a node takes are cores and GPUs of its Ray."""
    if cluster.kind == "local":
        return LaunchSpec(why="on this machine, with all its cores")
    nodes, tasks = asked_shape(cluster) or (1, 0)
    if cluster.tasks_per_node is None and cluster.ranks is None:
        tasks = cluster.max_tasks_per_node
    return LaunchSpec(nodes, tasks, ray=True, why=f"Ray on {nodes} nodes, trials on their cores")


# --- an array


def _trials(
    plan: SearchPlan, cluster: ClusterConfig, seconds: float, inputs: dict[str, str]
) -> list[CampaignRun]:
    """Return the trials, then the replicates of those that will be the best."""
    search, shared = plan.search, Shared(plan.config, plan.search)
    workers = search.workers_per_trial
    shape = replace(
        cluster, ranks=workers if workers > 1 else None, nodes=None, tasks_per_node=None,
        cpus_per_task=max(cluster.cpus_per_task, search.cpus_per_trial),
    )  # fmt: skip
    minutes, inputs = seconds / 60, {k: v for k, v in inputs.items() if k != "reference"}

    def run(role: str, number: int, seed: int | None, num: int) -> CampaignRun:
        spec = choose_spec(shape, plan.config, minutes=minutes, num_runs=num)
        if spec.ranks_per_run != workers:
            spec = LaunchSpec(why="one rank: search.workers_per_trial=1")
        label = f"{role} {number}" + (f" seed {seed}" if seed is not None else "")
        return CampaignRun(
            _key(plan.out, label), label, role, _config(plan), spec, seed, str(number),
            rank_seconds=seconds,
        )  # fmt: skip

    trials = []
    for number, settings in enumerate(plan.points()):
        *_, run_dir = identity_of(shared, Point(settings), inputs)
        one = run("trial", number, None, search.num_samples)
        trials.append(replace(one, directory=str(run_dir.path)))
    num = search.replicate + 1 if search.replicate else 0
    after = tuple(one.key for one in trials)
    replicates = [
        replace(run("replicate", place, seed, num * search.replicate_seeds), after=after)
        for place in range(min(num, search.num_samples))
        for seed in plan.seeds()
    ]
    return [*trials, *replicates]


def told_file(out: Path, label: str) -> Path:
    """Where a task of the array leaves what its trial reported last."""
    return out / "told" / f"{label.replace(' ', '-')}.json"
