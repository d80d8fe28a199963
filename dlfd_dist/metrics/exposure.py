"""Exposure of each person: how far their images stand out from images never seen."""

from __future__ import annotations

import numpy as np


def exposure_by_person(
    confidence: np.ndarray, persons: np.ndarray, unseen: np.ndarray
) -> dict[int, float]:
    """Return per person the AUC of telling their images from unseen ones by confidence, 0..1.

    0.5: like a stranger's; 1: the model is surer of each of them than of any unseen image. It is
    the share of pairs of one of theirs and an unseen one in which theirs is higher, ties counting
    half, so that the mean over images is the attack's AUC. A figure of few images is uncertain.

    Parameters
    ----------
    confidence : (n,) logit-scaled confidence of forgotten images
    persons : (n,) whose image each is
    unseen : (m,) the same of images that were never trained on, m >= 1
    """
    ordered = np.sort(unseen)
    below = np.searchsorted(ordered, confidence, side="left")
    through = np.searchsorted(ordered, confidence, side="right")
    share = (below + through) / (2 * len(ordered))
    return {int(person): float(share[persons == person].mean()) for person in np.unique(persons)}
