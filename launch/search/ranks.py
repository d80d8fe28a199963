"""The ranks of a trial: the trial itself and, where it has several, actors in its placement group.

Plain actors, and not Ray Train: with Ray 2.60, Train runs nested in Tune trials hung after two of
three trials. What Tune reserves for a trial is one placement group of N bundles, the first of them
for rank 0, which is the trial itself; the actors stay for the trials after it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlfd_dist.runtime.env import RankInfo

from .cluster import PORTS
from .point import Point, Shared
from .reports import Report
from .trial import run_rank

END_S = 120.0
"""How long the other ranks may take to end after the first has."""

_kept: list[Any] = []


def resources(cpus: int, gpus: float, workers: int) -> Any:
    """Return what Tune reserves for a trial: a bundle for each rank, on few nodes."""
    from ray.tune import PlacementGroupFactory

    bundle = {"CPU": float(cpus)} | ({"GPU": gpus} if gpus else {})
    return PlacementGroupFactory([dict(bundle) for _ in range(workers)], strategy="PACK")


def run_all(
    point: Point,
    shared: Shared,
    report: Report,
    trial_id: str,
    checkpoint: Path | None,
    gpus: float,
) -> None:
    """Run a trial on all of its ranks; this process is the first."""
    import ray

    world_size = shared.search.workers_per_trial
    if world_size == 1:
        run_rank(point, shared, report, trial_id, checkpoint)
        return
    others = _others(world_size, shared.search.cpus_per_trial, gpus)
    meeting = {"MASTER_ADDR": ray.util.get_node_ip_address(), "MASTER_PORT": str(free_port())}
    infos = [RankInfo(rank, 0, world_size, 1, rank, "ray") for rank in range(world_size)]
    work = [
        actor.run.remote(info, meeting, point, shared, trial_id, checkpoint)
        for actor, info in zip(others, infos[1:], strict=True)
    ]
    try:
        os.environ.update(meeting)
        try:
            run_rank(point, shared, report, trial_id, checkpoint, infos[0])
        finally:
            ray.get(work, timeout=END_S)
    except SystemExit:
        raise  # Tune stopped the trial, which all ranks have agreed on
    except BaseException:
        # A rank that failed alone may have left the others in the middle of something.
        _drop()
        raise


def _others(world_size: int, cpus: int, gpus: float) -> list[Any]:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    if not _kept:
        group = ray.util.get_current_placement_group()
        assert group is not None, "a trial runs in the group of its resources"
        remote = ray.remote(Rank)
        for index in range(1, world_size):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": place}
            _kept.append(remote.options(**options).remote())
    return _kept


def _drop() -> None:
    import ray

    for actor in _kept:
        ray.kill(actor)
    _kept.clear()


class Rank:
    """A rank beside the first, in a process of its own."""

    def run(
        self, info: RankInfo, meeting: dict[str, str], point: Point, shared: Shared,
        trial_id: str, checkpoint: Path | None,
    ) -> None:  # fmt: skip
        os.environ.update(meeting)
        try:
            run_rank(point, shared, lambda *_: None, trial_id, checkpoint, info)
        except SystemExit:
            return  # the first rank was stopped; to Ray it would be the end of this process


def free_port() -> int:
    """Return a port that nobody listens on, of those that launch.search.node named, if it did."""
    low, _, high = os.environ.get(PORTS, "").partition("-")
    ports = list(range(int(low), int(high) + 1)) if high else []
    random.SystemRandom().shuffle(ports)
    for port in [*ports, 0]:
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return tried.getsockname()[1]
    raise AssertionError("the system has no free port")


def tune_trial(config: dict[str, Any], *, shared: Shared, gpus: float) -> None:
    """Run a trial inside a worker of Tune."""
    from ray import tune
    from ray.tune import Checkpoint, get_checkpoint, get_context

    def report(figures: Mapping[str, Any], folder: Path | None = None) -> None:
        checkpoint = Checkpoint.from_directory(str(folder)) if folder else None
        tune.report(dict(figures), checkpoint=checkpoint)

    saved = get_checkpoint()
    trial_id = get_context().get_trial_id() or ""
    with saved.as_directory() if saved else contextlib.nullcontext() as folder:
        begin = Path(folder) if folder else None
        run_all(Point.of(config), shared, report, trial_id, begin, gpus)
