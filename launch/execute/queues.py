"""The queues that take a submission: submitit on SLURM, or submitit on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfd_dist.plain import counted
from dlfd_dist.run_dir import write_json

from . import slurm
from .batch import Waits
from .batches import Batch
from .journal import Ledger
from .places import job_folder
from .submission import REPORT, Submission
from .task import JobTask

MakeTask = Callable[[Path, str, int], JobTask]
"""Returns the task of a number in the array of a job; its module can be started as a process."""


@dataclass(frozen=True)
class SlurmQueue:
    """Queues jobs by submitit; the ledger knows of a job before SLURM does."""

    submission: Submission
    ledger: Ledger
    make_task: MakeTask

    def __call__(self, batch: Batch, waits: Waits) -> str:
        path, job = self.submission.plan.path, self.submission.job(batch, waits)
        write_job(self.submission, batch)
        facts = facts_of(batch, job.name)
        executor = job.executor()
        # The intent comes first: `settle` finds the job of a command that died, by its name.
        self.ledger.append("submitting", **facts)
        try:
            first, *_ = executor.submit_array(
                [self.make_task(path, batch.name, n) for n in range(len(batch.units))]
            )
        except slurm.SchedulerError as err:
            self.ledger.append("refused", job=batch.name, why=str(err))
            raise slurm.SchedulerError(
                f"{err} Queued of the campaign: {counted(len(self.submission.job_ids), 'job')}; "
                "the same command submits the others."
            ) from err
        job_id = first.job_id.partition("_")[0]
        self.ledger.append("submitted", job_id=job_id, **facts)
        return job_id


def settle(ledger: Ledger, make_task: MakeTask) -> None:
    """Settle the submissions whose command died between sbatch and the ledger."""
    for event in ledger.unanswered():
        job_id = slurm.queued_by_name(event["name"]) if slurm.has("squeue") else None
        facts = {k: event[k] for k in ("job", "name", "units", "array", "report")}
        if job_id:
            from .executor import Executor

            numbers = range(len(event["units"]))
            tasks = [make_task(ledger.path, event["job"], number) for number in numbers]
            Executor(job_folder(ledger.path)).lay_down(job_id, tasks)
            ledger.append("submitted", job_id=job_id, **facts)
        else:
            ledger.append("refused", job=event["job"], why="its command died, and no job is queued")


def start_locally(submission: Submission, ledger: Ledger, make_task: MakeTask) -> None:
    """Let submitit run the jobs one after another on this machine, in the background."""
    from .background import start

    jobs = [*submission.batches, submission.report]
    # What is under way writes the report at its end.
    if len(jobs) == 1 and (submission.joined or submission.has_report):
        return
    for batch in jobs:
        write_job(submission, batch)
    shapes = [(batch.name, len(batch.units), batch.spec) for batch in jobs]
    job_id = start(submission.plan.path, shapes, make_task.__module__)
    submission.job_ids.append(job_id)
    for batch in jobs:
        ledger.append("submitted", job_id=job_id, **facts_of(batch, batch.name) | {"array": False})


def facts_of(batch: Batch, name: str) -> dict[str, Any]:
    """Return what the ledger says of a job."""
    return {
        "job": batch.name, "name": name, "units": batch.units, "array": bool(batch.array),
        "report": batch.spec is REPORT,
    }  # fmt: skip


def write_job(submission: Submission, batch: Batch) -> None:
    """Write down what a task must know of its job."""
    plan, spec = submission.plan, batch.spec
    record = {
        "plan": plan.plan_name, "units": batch.units, "packed": spec.packed, "ray": spec.ray,
        "report": spec is REPORT, "nodes": spec.nodes, "tasks_per_node": spec.tasks_per_node,
        "gpus": plan.cluster.gpus, "mode": plan.mode, "directory": os.getcwd(),
        "code": str(submission.code) if submission.code else None,
    }  # fmt: skip
    write_json(plan.path / "jobs" / f"{batch.name}.json", record)
