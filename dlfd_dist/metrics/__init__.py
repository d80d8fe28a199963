"""Measures: pure functions of arrays, one kind per file."""

from .accuracy import accuracy, accuracy_error, accuracy_per_label, correct
from .exposure import exposure_by_person
from .gap import gap_on_val, gap_to_retrained, tug_of_war
from .guards import guards_of
from .membership_probes import MembershipProbes, membership_probes
from .mia import (
    CHANCE,
    MIAResult,
    attack_accuracy,
    auc,
    auc_standard_error,
    detectable_auc,
    forgetting_score,
    low_power_reason,
    membership_attack,
    mia_paper,
    quick_attack,
)
from .nomus import nomus
from .over_forgetting import OverForgetting, over_forgetting
from .relearn import anamnesis_index, relearn_limit, relearn_time
from .rmia import rmia_scores
from .sample_losses import (
    SIGNALS,
    attack_signals,
    logit_scaled_confidence,
    modified_entropy,
    prediction_entropy,
    sample_losses,
)
from .separation import Separation, class_separation
from .sides import Samples
from .similarity import (
    completeness,
    js_divergence,
    label_pairs,
    linear_cka,
    zero_retrain_forgetting,
)

__all__ = [
    "CHANCE",
    "MIAResult",
    "MembershipProbes",
    "OverForgetting",
    "SIGNALS",
    "Samples",
    "Separation",
    "accuracy",
    "accuracy_error",
    "anamnesis_index",
    "accuracy_per_label",
    "attack_accuracy",
    "attack_signals",
    "auc",
    "auc_standard_error",
    "class_separation",
    "completeness",
    "correct",
    "detectable_auc",
    "exposure_by_person",
    "forgetting_score",
    "gap_on_val",
    "guards_of",
    "gap_to_retrained",
    "js_divergence",
    "label_pairs",
    "linear_cka",
    "logit_scaled_confidence",
    "low_power_reason",
    "membership_attack",
    "membership_probes",
    "mia_paper",
    "modified_entropy",
    "nomus",
    "over_forgetting",
    "prediction_entropy",
    "quick_attack",
    "relearn_limit",
    "relearn_time",
    "rmia_scores",
    "sample_losses",
    "tug_of_war",
    "zero_retrain_forgetting",
]
