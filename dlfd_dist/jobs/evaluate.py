"""Evaluation of a checkpoint that is there already."""

from __future__ import annotations

import time
from typing import Any

from ..runtime.energy import EnergyMeter
from ..runtime.preemption import StopFlag
from .context import Job
from .finish import measure


def evaluate_checkpoint(job: Job, stop: StopFlag) -> dict[str, Any]:
    """Measure the checkpoint of the configuration; return the result."""
    start, meter = time.monotonic(), EnergyMeter(job.collectives.device)
    model = job.model(job.config.checkpoint)
    seconds, joules = time.monotonic() - start, meter.of_all_ranks(job.collectives)
    chosen = {"selection": "the given checkpoint", "energy_joules": joules}
    return measure(job, model, seconds, chosen)
