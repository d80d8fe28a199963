"""The jobs of one submit or retry: their order, and what each of them waits for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..plan.runs import Plan
from ..plan.shape import LaunchSpec
from .batch import BatchJob, Waits
from .batches import Batch, make_batches
from .journal import Placement, placements_of
from .places import job_folder

REPORT = LaunchSpec(why="runs whatever became of the others, and names what is missing")
Queue = Callable[[Batch, Waits], str]
"""Takes a job with what it waits for, and returns its id."""


class Lanes:
    """cluster.max_running for a whole campaign: so many lanes, with one task in each at a time.

    SLURM itself limits the tasks of one array alone (%N). A job takes as many lanes as tasks of it
    may run at once, and waits until the jobs before it in these lanes have ended, well or not.
    """

    def __init__(self, limit: int | None, busy: Sequence[str]):
        self.limit = limit
        self._lanes = [(0.0, list(busy))] * (limit or 0)
        """When each is free, by the estimates, and the jobs that must have ended by then."""

    def take(self, num_tasks: int, task_seconds: float) -> tuple[list[str], list[str]]:
        """Return the jobs to wait for, and a list that the caller puts the new job's id into."""
        self._lanes.sort(key=lambda lane: lane[0])
        taken, job = self._lanes[:num_tasks], []
        if taken:
            end = taken[-1][0] + math.ceil(num_tasks / len(taken)) * task_seconds
            self._lanes[: len(taken)] = [(end, job)] * len(taken)
        return list(dict.fromkeys(job_id for _, jobs in taken for job_id in jobs)), job


@dataclass
class Submission:
    """The runs that one submit or retry queues, and the runs that need no job."""

    plan: Plan
    number: int
    finished: dict[str, Path]
    joined: dict[str, Placement]
    """Runs that an earlier submission has in the queue."""
    busy: list[str] = field(default_factory=list)
    """The jobs of earlier submissions that have not ended, whatever they do."""
    code: Path | None = None
    placed: dict[str, Placement] = field(default_factory=dict)
    """The runs that this submission has queued."""
    job_ids: list[str] = field(default_factory=list)

    @property
    def batches(self) -> list[Batch]:
        todo = [
            run
            for run in self.plan.runs
            if run.key not in self.finished and run.key not in self.joined
        ]
        return make_batches(todo, self.plan.cluster, self.number, self.joined.keys())

    @property
    def report(self) -> Batch:
        return Batch(f"{self.number:02d}-report", ((),), REPORT, title="the report")

    @property
    def has_report(self) -> bool:
        return (self.plan.path / "report.html").is_file()

    @property
    def device_hours(self) -> float:
        """The estimate for what is to be done."""
        runs = self.plan.by_key
        keys = [key for batch in self.batches for unit in batch.units for key in unit]
        return sum(runs[key].rank_seconds for key in keys) / 3600

    def job(self, batch: Batch, waits: Waits | None = None) -> BatchJob:
        return job_of(self.plan, batch, self.code, waits)

    def hand_to(self, queue: Queue, *, always_report: bool = False) -> None:
        """Hand every job to a queue, parents first, and the report last.

        Parameters
        ----------
        always_report : whether the report is made anew though no run of it is new
        """
        lanes = Lanes(self.plan.cluster.max_running, self.busy)
        for batch in self.batches:
            busy, job = lanes.take(batch.num_tasks, self._task_seconds(batch))
            ended = [*self._arrays_of(batch.after), *busy]
            job_id = queue(batch, Waits(self._parents_of(batch), ended, batch.by_task))
            job.append(job_id)
            self.job_ids.append(job_id)
            facts = {"job": batch.name, "units": batch.units, "array": bool(batch.array)}
            self.placed |= placements_of({**facts, "job_id": job_id})
        waiting = [place.job_id.split("_")[0] for place in self.joined.values()]
        after = list(dict.fromkeys([*self.job_ids, *waiting]))
        if after or always_report or not self.has_report:
            self.job_ids.append(queue(self.report, Waits(after_any=after)))

    def _parents_of(self, batch: Batch) -> list[str]:
        """Return the ids of the jobs whose models the runs of a batch need."""
        places = {**self.joined, **self.placed}
        ids = [places[key].job_id for key in batch.parents]
        return list(dict.fromkeys(i.split("_")[0] if batch.by_task else i for i in ids))

    def _arrays_of(self, keys: Sequence[str]) -> list[str]:
        """Return the ids of the jobs that do these runs, without those that are finished."""
        places = {**self.joined, **self.placed}
        ids = [places[key].job_id.split("_")[0] for key in keys if key not in self.finished]
        return list(dict.fromkeys(ids))

    def _task_seconds(self, batch: Batch) -> float:
        """Return what the longest task of a batch is estimated to take."""
        runs = self.plan.by_key
        sums = [sum(runs[key].rank_seconds for key in unit) for unit in batch.units]
        return max(sums) / batch.spec.ranks


def job_of(plan: Plan, batch: Batch, code_dir: Path | None, waits: Waits | None = None) -> BatchJob:
    cluster = plan.cluster
    if batch.spec is REPORT:
        partition = cluster.report_partition or cluster.partition
        cluster = replace(cluster, gpus="none", partition=partition)
    return BatchJob(
        job_folder(plan.path), f"dlfd-{plan.name}-{batch.name}",
        f"dlfd {plan.verb}: {batch.title}", batch.spec, cluster, batch.array, os.getcwd(),
        code_dir, waits or Waits(),
    )  # fmt: skip
