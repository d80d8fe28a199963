"""What an attack sees of a sample: its loss and the logit-scaled confidence in its true label."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, logsumexp


def sample_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the task loss per sample in nats, shape (n,): CE, or the mean BCE over labels."""
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 1:
        return -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], 1)[:, 0]
    return (np.logaddexp(0, logits) - labels * logits).mean(1)


def logit_scaled_confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return log p_y - log(1 - p_y) per sample, shape (n,), computed without forming p_y.

    For several labels it is the mean over labels. Source: Carlini et al. 2022 (LiRA), eq. 6.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        return np.where(labels > 0, logits, -logits).mean(1)
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - logsumexp(others, axis=1)
