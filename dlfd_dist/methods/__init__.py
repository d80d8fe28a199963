"""Unlearning methods by name."""

from . import dlfd, dlfd_official, finetune  # noqa: F401  (fill the registry)
from .base import MethodContext, Probe, StepBatch, UnlearningMethod, methods
from .update import Updater, scheduled_lr

__all__ = [
    "MethodContext",
    "Probe",
    "StepBatch",
    "UnlearningMethod",
    "Updater",
    "methods",
    "scheduled_lr",
]
