"""RMIA: each image against a population, with few reference models (Zarifzadeh et al. 2024).

It needs far fewer models than LiRA, and tells how exposed each image is by itself.
"""

from __future__ import annotations

import numpy as np


def rmia_scores(
    target: np.ndarray,
    references: np.ndarray,
    population_target: np.ndarray,
    population_references: np.ndarray,
    *,
    gamma: float = 1.0,
    offline_a: float | None = None,
) -> np.ndarray:
    """Return per image the share of the population that it dominates, shape (n,), 0..1.

    With p the probability of the true label, the ratio of an image x is p(x; target) / p(x), p(x)
    being the mean over the references; x dominates z when ratio(x) / ratio(z) >= gamma. Members
    come near 1. Source: Zarifzadeh, Liu and Shokri 2024, "Low-cost high-power membership inference
    attacks", eq. 1 to 4 and, for references that never saw the images, appendix B.2.2.

    Parameters
    ----------
    target : (n,) probabilities of the true labels by the attacked model
    references : (k, n) the same by k reference models
    population_target, population_references : (m,), (k, m) the same on images nobody trained on
    offline_a : None: the references are half with and half without each image; a number a in 0..1:
        all are without, and p(x) is corrected to ((1 + a) p_out + 1 - a) / 2
    """
    ratio = _ratio(target, references, offline_a)
    others = np.sort(_ratio(population_target, population_references, offline_a))
    return np.searchsorted(others, ratio / gamma, side="right") / len(others)


def _ratio(target: np.ndarray, references: np.ndarray, offline_a: float | None) -> np.ndarray:
    usual = np.asarray(references, dtype=np.float64).mean(0)
    if offline_a is not None:
        usual = ((1 + offline_a) * usual + 1 - offline_a) / 2
    return np.asarray(target, dtype=np.float64) / np.maximum(usual, np.finfo(np.float64).tiny)
