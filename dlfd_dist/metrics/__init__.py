"""Measures: pure functions of arrays, one kind per file."""

from .accuracy import accuracy, accuracy_per_label, correct
from .gap import gap_to_retrained
from .mia import MIAResult, attack_accuracy, auc, balanced_mia, forgetting_score, mia_paper
from .nomus import nomus
from .over_forgetting import OverForgetting, over_forgetting
from .sample_losses import logit_scaled_confidence, sample_losses
from .separation import Separation, class_separation

__all__ = [
    "MIAResult",
    "OverForgetting",
    "Separation",
    "accuracy",
    "accuracy_per_label",
    "attack_accuracy",
    "auc",
    "balanced_mia",
    "class_separation",
    "correct",
    "forgetting_score",
    "gap_to_retrained",
    "logit_scaled_confidence",
    "mia_paper",
    "nomus",
    "over_forgetting",
    "sample_losses",
]
