"""RMIA: each image against a population, with few reference models (Zarifzadeh et al. 2024).

It needs far fewer models than LiRA, and tells how exposed each image is by itself.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit


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
    references : (k, n) the same by k reference models; NaN where a model is none of an image's
    population_target, population_references : (m,), (k, m) the same on images nobody trained on
    offline_a : None: the references are half with and half without each image; a number a in 0..1:
        all are without, and p(x) is corrected to ((1 + a) p_out + 1 - a) / 2
    """
    ratio = _ratio(target, references, offline_a)
    others = np.sort(_ratio(population_target, population_references, offline_a))
    return np.searchsorted(others, ratio / gamma, side="right") / len(others)


def _ratio(target: np.ndarray, references: np.ndarray, offline_a: float | None) -> np.ndarray:
    usual = np.nanmean(np.asarray(references, dtype=np.float64), axis=0)
    if offline_a is not None:
        usual = ((1 + offline_a) * usual + 1 - offline_a) / 2
    return np.asarray(target, dtype=np.float64) / np.maximum(usual, np.finfo(np.float64).tiny)


def shadow_scores(
    world: np.ndarray,
    retrained: np.ndarray,
    original: np.ndarray,
    forgotten: np.ndarray,
    population: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the models of a world and of Retrained's, shapes (K, N).

    The references of an image that shadow k forgets are Original and Retrained of all other shadows
    that forget it: half of them saw the image and half did not, as eq. 4 asks, and no model is its
    own reference. The population is what both models of k have values for: what a method was
    matched to is no stranger. NaN where k does not forget the image or no other shadow does.

    Parameters
    ----------
    world, retrained, original : (K, N) logit-scaled confidences; NaN where there is none
    forgotten : (K, N) whether shadow k forgets the image, and both worlds have it
    population : row numbers of images that nobody trained on
    """
    probability = [expit(values) for values in (original, retrained)]
    known = ~(np.isnan(original) | np.isnan(retrained))
    own, other = np.full(world.shape, np.nan), np.full(world.shape, np.nan)
    for k in np.flatnonzero(forgotten.any(1)):
        beside = (np.arange(len(world)) != k) & known[:, population].any(1)
        is_reference = forgotten & known & beside[:, None]
        here = np.flatnonzero(forgotten[k] & is_reference.any(0))
        strangers = population[~(np.isnan(world[k]) | np.isnan(retrained[k]))[population]]
        if not (len(here) and len(strangers)):
            continue
        of_images = [np.where(is_reference, p, np.nan)[beside][:, here] for p in probability]
        of_population = [p[beside][:, strangers] for p in probability]
        references = np.concatenate(of_images), np.concatenate(of_population)
        for scores, target in ((own, world[k]), (other, retrained[k])):
            scores[k, here] = rmia_scores(
                expit(target[here]), references[0], expit(target[strangers]), references[1]
            )
    return own, other
