"""U-LiRA: per image, is a model that was made to forget it told from one that never saw it?

Two worlds hold K models each, paired: model k of both forgets (or never saw) the same people.
A value is the logit-scaled confidence of a model in the true label of an image. Legend: K models,
E images. Sources: Hayes et al. 2024, "Inexact unlearning needs more careful evaluations",
algorithm 1; Carlini et al. 2022 (LiRA), sections V and VI-D.
"""

from __future__ import annotations

import numpy as np

POOLED_BELOW = 64
"""With fewer models a variance per image is noise, so that one is taken over all images."""
MIN_MODELS = 3
"""Without the pair under test two values must be left to fit a variance to."""
_SMALLEST_VARIANCE = 1e-12


def log_ratios(
    unlearned: np.ndarray, retrained: np.ndarray, *, pooled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return log N(x; unlearned fit) - log N(x; retrained fit) of every value, shapes (K, E).

    Model k of both worlds is left out of the fits its values are judged by: then both fits rest on
    equally many values, and swapping the pair swaps its scores.

    Parameters
    ----------
    unlearned, retrained : (K, E) confidences; NaN where model k does not forget the image
    pooled : one variance per world, the mean over images, in place of one per image

    Returns NaN where a value is missing or fewer than 3 models hold the image.
    """
    here = ~(np.isnan(unlearned) | np.isnan(retrained))
    here &= here.sum(0) >= MIN_MODELS
    fits = [
        _fits_without(np.where(here, world, np.nan), pooled) for world in (unlearned, retrained)
    ]
    own, other = (
        np.where(here, _log_density(world, *fits[0]) - _log_density(world, *fits[1]), np.nan)
        for world in (unlearned, retrained)
    )
    return own, other


def _fits_without(world: np.ndarray, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each image over the models but k, shapes (K, E)."""
    here = ~np.isnan(world)
    num = here.sum(0)
    # About the mean of all, or squares of large values would swallow a small variance.
    centre = np.where(here, world, 0).sum(0) / np.maximum(num, 1)
    values = np.where(here, world - centre, 0.0)
    left = np.maximum(num - here, 1)
    mean = (values.sum(0) - values) / left
    squares = (values**2).sum(0) - values**2 - left * mean**2
    freedom = np.where(num >= MIN_MODELS, num - here - 1, 0)
    if pooled:
        total, sizes = squares * (freedom > 0), freedom
        variance = (total.sum(1) / np.maximum(sizes.sum(1), 1))[:, None] + np.zeros_like(world)
    else:
        variance = squares / np.maximum(freedom, 1)
    return mean + centre, np.maximum(variance, _SMALLEST_VARIANCE)


def _log_density(values: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return -0.5 * (np.log(2 * np.pi * variance) + (values - mean) ** 2 / variance)


def by_person(scores: np.ndarray, person_of_image: np.ndarray, num_people: int) -> np.ndarray:
    """Return the sum over each person's images, shape (K, P): a person is asked about as a whole.

    NaN where a model has no score of any of them.
    """
    sums, counts = (np.zeros((num_people, len(scores))) for _ in range(2))
    np.add.at(sums, person_of_image, np.nan_to_num(scores).T)
    np.add.at(counts, person_of_image, ~np.isnan(scores).T)
    return np.where(counts > 0, sums, np.nan).T
