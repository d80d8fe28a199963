"""Unlearning methods by name."""

from . import (  # noqa: F401  (fill the registry)
    bad_teacher,
    dlfd,
    dlfd_official,
    dlfm,
    finetune,
    l1_sparse,
    last_blocks,
    neggrad,
    neggrad_plus,
    salun,
    scrub,
    ssd,
    unsir,
)
from .base import MethodContext, Phase, Probe, StepBatch, UnlearningMethod, methods
from .update import Updater, scheduled_lr

__all__ = [
    "MethodContext",
    "Phase",
    "Probe",
    "StepBatch",
    "UnlearningMethod",
    "Updater",
    "methods",
    "scheduled_lr",
]
