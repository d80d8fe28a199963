"""Accuracy of a classifier, or the mean accuracy over the labels of a multi-label one."""

from __future__ import annotations

import numpy as np

from .people import mean_variance


def correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what share of each sample's labels is right, shape (n,), in 0..1.

    Parameters
    ----------
    logits : (n, C) with labels (n,), or (n, L) with labels (n, L) of zeros and ones
    """
    if labels.ndim == 1:
        return (logits.argmax(1) == labels).astype(np.float64)
    return ((logits > 0) == (labels > 0)).mean(1)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean of `correct`, None for an empty set."""
    return float(correct(logits, labels).mean()) if len(labels) else None


def accuracy_error(logits: np.ndarray, labels: np.ndarray, people: np.ndarray) -> float:
    """Return the standard error of the accuracy over people; 0 for an empty set."""
    return mean_variance(correct(logits, labels), np.ones(len(labels)), people) ** 0.5


def accuracy_per_label(logits: np.ndarray, labels: np.ndarray) -> list[float] | None:
    """Return the accuracy of every label of a multi-label task; None for a single-label one."""
    if labels.ndim == 1 or not len(labels):
        return None
    return [float(a) for a in ((logits > 0) == (labels > 0)).mean(0)]
