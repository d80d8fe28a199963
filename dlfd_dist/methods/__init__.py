"""Unlearning methods by name."""

from . import (  # noqa: F401  (fill the registry)
    amun,
    bad_teacher,
    ct,
    dlfd,
    dlfd_official,
    dlfm,
    fcs,
    finetune,
    gli,
    l1_sparse,
    last_blocks,
    msg,
    neggrad,
    neggrad_plus,
    reset,
    rewind,
    salun,
    scrub,
    ssd,
    unsir,
    weight_distortion,
)
from .base import (
    MethodContext,
    Phase,
    Probe,
    StepBatch,
    UnlearningMethod,
    methods,
    plugin,
    set_training_mode,
)
from .start import reset_weights
from .update import Updater, scheduled_lr

__all__ = [
    "MethodContext",
    "Phase",
    "Probe",
    "StepBatch",
    "UnlearningMethod",
    "Updater",
    "methods",
    "plugin",
    "reset_weights",
    "scheduled_lr",
    "set_training_mode",
]
