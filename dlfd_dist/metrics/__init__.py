"""Measures: pure functions of arrays, one kind per file."""

from .accuracy import accuracy, accuracy_per_label, correct
from .gap import gap_to_retrained
from .mia import MIAResult, attack_accuracy, auc, balanced_mia, forgetting_score, mia_paper
from .nomus import nomus
from .sample_losses import logit_scaled_confidence, sample_losses

__all__ = [
    "MIAResult",
    "accuracy",
    "accuracy_per_label",
    "attack_accuracy",
    "auc",
    "balanced_mia",
    "correct",
    "forgetting_score",
    "gap_to_retrained",
    "logit_scaled_confidence",
    "mia_paper",
    "nomus",
    "sample_losses",
]
