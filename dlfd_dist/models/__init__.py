"""Classifiers: torchvision backbones with heads that give features and logits at once."""

from .backbones import backbones
from .blocks import knows_blocks, model_blocks
from .captured import CapturedModel
from .checks import check_classifier
from .classifier import (
    Classifier,
    ModelOutput,
    Network,
    build_model,
    check_model,
    computed_in,
    outline,
)
from .folded import FoldedClassifier
from .fresh import require_module
from .heads import (
    set_dropout_rows,
    task_confidence,
    task_divergence,
    task_loss,
    task_prediction,
)
from .weights import check_weights, load_weights, save_weights, weights_path

__all__ = [
    "CapturedModel",
    "Classifier",
    "FoldedClassifier",
    "ModelOutput",
    "Network",
    "backbones",
    "build_model",
    "check_classifier",
    "check_model",
    "check_weights",
    "computed_in",
    "knows_blocks",
    "load_weights",
    "model_blocks",
    "outline",
    "require_module",
    "save_weights",
    "set_dropout_rows",
    "task_confidence",
    "task_divergence",
    "task_loss",
    "task_prediction",
    "weights_path",
]
