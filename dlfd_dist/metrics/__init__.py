"""Measures: pure functions of arrays, one kind per file.

scipy.stats and scikit-learn take seconds to load and are needed after the last step of a run, so
they are imported by the functions that use them.
"""

from .accuracy import accuracy, accuracy_error, accuracy_per_label, correct
from .acted import Moved, against_original, alike, moved, relative_change
from .custom import custom_figures, custom_metrics
from .equivalence import Equivalence, equivalence
from .estimates import Estimate, people_mean
from .exposure import exposure_by_person
from .gap import (
    GAP_PARTS,
    GapPart,
    attack_error,
    attack_gap,
    gap_parts,
    gap_to_retrained,
    tug_of_war,
)
from .guards import guards_of
from .membership_probes import MembershipProbes, membership_probes
from .mia import (
    CHANCE,
    MIAResult,
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
from .outputs import ModelOutputs, Outputs
from .over_forgetting import OverForgetting, over_forgetting
from .relearn import anamnesis_index, relearn_limit, relearn_time
from .rmia import rmia_scores
from .salun import salun_gap, salun_mia
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
    class_mean_divergence,
    completeness,
    js_divergence,
    label_pairs,
    linear_cka,
    predictions,
    zero_retrain_forgetting,
)
from .without_retrained import WithoutRetrained, without_retrained

__all__ = [
    "CHANCE",
    "Equivalence",
    "Estimate",
    "GAP_PARTS",
    "GapPart",
    "MIAResult",
    "MembershipProbes",
    "ModelOutputs",
    "Moved",
    "Outputs",
    "OverForgetting",
    "SIGNALS",
    "Samples",
    "Separation",
    "WithoutRetrained",
    "accuracy",
    "accuracy_error",
    "accuracy_per_label",
    "against_original",
    "alike",
    "anamnesis_index",
    "attack_error",
    "attack_gap",
    "attack_signals",
    "auc",
    "auc_standard_error",
    "class_mean_divergence",
    "class_separation",
    "completeness",
    "correct",
    "equivalence",
    "custom_figures",
    "custom_metrics",
    "detectable_auc",
    "exposure_by_person",
    "forgetting_score",
    "gap_parts",
    "gap_to_retrained",
    "guards_of",
    "js_divergence",
    "label_pairs",
    "linear_cka",
    "logit_scaled_confidence",
    "low_power_reason",
    "membership_attack",
    "membership_probes",
    "mia_paper",
    "modified_entropy",
    "moved",
    "nomus",
    "over_forgetting",
    "people_mean",
    "prediction_entropy",
    "predictions",
    "quick_attack",
    "relative_change",
    "relearn_limit",
    "relearn_time",
    "rmia_scores",
    "salun_gap",
    "salun_mia",
    "sample_losses",
    "tug_of_war",
    "without_retrained",
    "zero_retrain_forgetting",
]
