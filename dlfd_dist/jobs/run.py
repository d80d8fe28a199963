"""One run, from its configuration to its result, on this rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import JobConfig
from ..runtime.collectives import Collectives
from ..runtime.preemption import StopFlag
from ..trackers.page import end_trackers, write_page
from .context import Job, Prepared, open_job, prepare
from .evaluate import evaluate_checkpoint
from .train import train
from .unlearn import unlearn

JOBS: dict[str, Callable[[Job, StopFlag], dict[str, Any]]] = {
    "train": train,
    "unlearn": unlearn,
    "evaluate": evaluate_checkpoint,
}


def run_prepared(prepared: Prepared, collectives: Collectives, stop: StopFlag) -> dict[str, Any]:
    """Run a prepared job, or return the result it already has."""
    with open_job(prepared, collectives) as job:
        if job.run_dir.finished():
            if collectives.is_main:
                end_trackers(prepared.config, job.run_dir)
            return job.run_dir.read_result()
        result = JOBS[prepared.config.verb](job, stop)
        if job.tracking is not None:
            job.tracking.end(result, lambda: write_page(job.run_dir))
        return result


def run_job(config: JobConfig, collectives: Collectives, stop: StopFlag) -> dict[str, Any]:
    """Prepare and run a job on this rank; every rank of the job calls it."""
    return run_prepared(prepare(config, collectives.world_size), collectives, stop)
