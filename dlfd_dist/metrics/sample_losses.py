"""What an attack sees of a sample, from its logits: loss, confidence, entropy, correctness.

Sources: Carlini et al. 2022 (LiRA), eq. 6, for the logit-scaled confidence; Song and Mittal 2021,
"Systematic evaluation of privacy risks", for entropy and modified entropy.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_softmax, logsumexp

from .accuracy import correct

SIGNALS = ("correctness", "loss", "confidence", "entropy", "modified_entropy")
"""What an attack may go by; each is turned so that a member is expected to have more of it."""


def attack_signals(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return every one of SIGNALS per sample, (n,) each; of several labels the mean over them.

    Loss, entropy and modified entropy are negated, so that all of them grow with membership.
    """
    return {
        "correctness": correct(logits, labels),
        "loss": -sample_losses(logits, labels),
        "confidence": logit_scaled_confidence(logits, labels),
        "entropy": -prediction_entropy(logits, labels),
        "modified_entropy": -modified_entropy(logits, labels),
    }


def sample_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the task loss per sample in nats, shape (n,): CE, or the mean BCE over labels."""
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 1:
        # Not by 1 - p: where p rounds to 1 the losses must still differ.
        return np.logaddexp(0, -logit_scaled_confidence(logits, labels))
    return (np.logaddexp(0, logits) - labels * logits).mean(1)


def logit_scaled_confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return log p_y - log(1 - p_y) per sample, shape (n,), computed without forming p_y.

    For several labels it is the mean over labels.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        return np.where(labels > 0, logits, -logits).mean(1)
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - logsumexp(others, axis=1)


def prediction_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -sum p log p of the prediction in nats, shape (n,); the labels say only the task."""
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        p, log_p, log_q = expit(logits), -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
        return -(p * log_p + (1 - p) * log_q).mean(1)
    log_p, _ = _log_shares(logits)
    return -(np.exp(log_p) * log_p).sum(1)


def modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -(1 - p_y) log p_y - sum over the other classes of p_i log(1 - p_i), shape (n,).

    Unlike the entropy it is large where the model is sure of a wrong class. Of a label of several,
    which has two classes, it is -2 (1 - p_y) log p_y.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim == 2:
        right = np.where(labels > 0, logits, -logits)
        return (2 * expit(-right) * np.logaddexp(0, -right)).mean(1)
    log_p, log_others = _log_shares(logits)
    rows = np.arange(len(labels))
    terms = np.exp(log_p) * log_others
    terms[rows, labels] = np.exp(log_others[rows, labels]) * log_p[rows, labels]
    return -terms.sum(1)


def _log_shares(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log p and log(1 - p) of every class, exact where the largest p rounds to 1."""
    log_p = log_softmax(logits, axis=1)
    rows, top = np.arange(len(logits)), logits.argmax(1)
    below = log_p.copy()
    below[rows, top] = -np.inf
    log_rest = np.asarray(logsumexp(below, axis=1))
    log_p[rows, top] = np.log1p(-np.exp(log_rest))
    below[rows, top] = 0.0
    log_others = np.log1p(-np.exp(below), where=below < 0, out=np.zeros_like(below))
    log_others[rows, top] = log_rest
    return log_p, log_others
