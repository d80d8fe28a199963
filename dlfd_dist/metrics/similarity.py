"""How alike two models are in what they say and in how they represent the same images."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax, rel_entr, softmax

LN2 = np.log(2.0)


def linear_cka(features: np.ndarray, others: np.ndarray) -> float | None:
    """Return the linear centred kernel alignment of two representations of the same rows, 0..1.

    1 where one is a rotation, a shift and a scaling of the other. Few rows flatter it: independent
    features of n rows and d columns come near 1 as d / n grows, so compare it with that of another
    model on the same rows. None where one side does not vary.
    Source: Kornblith et al. 2019, eq. 5 in its form by features.

    Parameters
    ----------
    features, others : (n, d), (n, e)
    """
    if len(features) != len(others):
        raise ValueError(f"representations of {len(features)} and of {len(others)} rows")
    x, y = (side - side.mean(0) for side in (features, others))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else None


def js_divergence(logits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence of two predictions per row, in bits, shape (n,), 0..1.

    Logits of several labels count as one distribution each, and the mean over labels is taken.

    Parameters
    ----------
    logits, others : (n, C) of one softmax, or (n, L, 2) with a pair per label (`label_pairs`)
    """
    p, q = (np.exp(log_softmax(np.asarray(side, float), axis=-1)) for side in (logits, others))
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * LN2)
    return divergence.reshape(len(divergence), -1).mean(1)


def label_pairs(logits: np.ndarray) -> np.ndarray:
    """Return logits of L yes-or-no labels, (n, L), as the pairs that a softmax takes, (n, L, 2).

    >>> label_pairs(np.array([[1.5]])).tolist()
    [[[0.0, 1.5]]]
    """
    return np.stack([np.zeros_like(logits), logits], axis=-1)


def predictions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return logits as the functions here take them: pairs where there are several labels."""
    return label_pairs(logits) if labels.ndim == 2 else logits


def completeness(logits: np.ndarray, others: np.ndarray) -> float:
    """Return the share of rows of which both models say the same, 0..1.

    The same class, or for pairs per label the same answer for every label. With Retrained as the
    other model and the forget set as rows: how completely its answers are reached.
    Source: Cao and Yang 2015, "completeness".
    """
    same = np.asarray(logits).argmax(-1) == np.asarray(others).argmax(-1)
    return float(same.reshape(len(same), -1).all(1).mean())


def zero_retrain_forgetting(logits: np.ndarray, incompetent: np.ndarray) -> float:
    """Return 1 minus the mean divergence from a model with random weights on forgotten rows, 0..1.

    It needs no Retrained: near 1 the model knows as little of these rows as one that learned
    nothing. Retrained itself does not reach 1 where it generalises to the forgotten people, so
    higher is not always better. Source: Chundawat et al. 2023 (Bad Teacher), "ZRF score".
    """
    return float(1 - js_divergence(logits, incompetent).mean())


def class_mean_divergence(
    logits: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray
) -> float | None:
    """Return the retrain-free divergence between two sets of images in bits, 0..1.

    Per class the Jensen-Shannon divergence between the mean output of an unlearned model on the
    forgotten images of the class and that of the model before it on images never seen, and of that
    the mean over the classes that both sets have; None where they share none. Near 0 the forgotten
    are answered like strangers. Of yes-or-no labels each is two classes, and the mean over labels
    is taken. Source: Spartalis et al., CVPR 2025 (LoTUS), "RF-JSD"; their code swaps the arguments
    of the divergence and normalises over all classes at once, ours is the definition.

    Parameters
    ----------
    logits, others : (n, C), (m, C); with labels (n,), (m,), or (n, L) with (n, L) of zeros and ones
    """
    if labels.ndim == 2:
        divergences = [
            class_mean_divergence(label_pairs(a), b, label_pairs(c), d)
            for a, b, c, d in zip(logits.T, labels.T, others.T, other_labels.T, strict=True)
        ]
        known = [value for value in divergences if value is not None]
        return float(np.mean(known)) if known else None
    common = np.intersect1d(labels, other_labels)
    if not len(common):
        return None
    means = [
        np.array([softmax(side[of == label], axis=1).mean(0) for label in common])
        for side, of in ((logits, labels), (others, other_labels))
    ]
    with np.errstate(divide="ignore"):
        return float(js_divergence(*(np.log(side) for side in means)).mean())
