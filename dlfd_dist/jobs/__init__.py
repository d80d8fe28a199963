"""The jobs: train, unlearn, evaluate."""

from .context import Job, Prepared, prepare
from .run import run_job, run_prepared

__all__ = ["Job", "Prepared", "prepare", "run_job", "run_prepared"]
