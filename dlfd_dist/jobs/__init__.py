"""The jobs: train, unlearn, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import Job, Prepared, prepare

if TYPE_CHECKING:
    from .run import run_job, run_prepared

__all__ = ["Job", "Prepared", "prepare", "run_job", "run_prepared"]


def __getattr__(name: str) -> Any:
    # The loops load scikit-learn for their attacks: a dry run, which only plans, does without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import run

    return getattr(run, name)
