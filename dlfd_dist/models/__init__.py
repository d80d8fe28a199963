"""Classifiers: torchvision backbones with heads that give features and logits at once."""

from .backbones import backbones, check_backbone
from .blocks import model_blocks
from .classifier import Classifier, ModelOutput, build_model, computed_in
from .folded import FoldedClassifier
from .heads import (
    set_dropout_rows,
    task_confidence,
    task_divergence,
    task_loss,
    task_prediction,
)
from .weights import check_weights, load_weights, save_weights, weights_path

__all__ = [
    "Classifier",
    "FoldedClassifier",
    "ModelOutput",
    "backbones",
    "build_model",
    "check_backbone",
    "check_weights",
    "computed_in",
    "load_weights",
    "model_blocks",
    "save_weights",
    "set_dropout_rows",
    "task_confidence",
    "task_divergence",
    "task_loss",
    "task_prediction",
    "weights_path",
]
