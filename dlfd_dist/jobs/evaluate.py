"""Evaluation of a checkpoint that is there already."""

from __future__ import annotations

import time
from typing import Any

from ..runtime.preemption import StopFlag
from .context import Job
from .finish import measure


def evaluate_checkpoint(job: Job, stop: StopFlag) -> dict[str, Any]:
    """Measure the checkpoint of the configuration; return the result."""
    start = time.monotonic()
    model = job.model(job.config.checkpoint)
    return measure(job, model, time.monotonic() - start, {"selection": "the given checkpoint"})
