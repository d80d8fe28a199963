"""Random scores of members and nonmembers."""

from __future__ import annotations

import numpy as np

from dlfd_dist.metrics import Samples


def draws(n: int, m: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return normal member and nonmember scores whose means differ by `shift`."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, m)


def of_confidence(confidence: np.ndarray, people: np.ndarray | None = None) -> Samples:
    """Return samples of the first of two classes; without people each shows somebody else."""
    confidence = np.asarray(confidence, dtype=np.float64)
    logits = np.stack([confidence, np.zeros_like(confidence)], 1)
    who = np.arange(len(confidence)) if people is None else people
    return Samples.of(logits, np.zeros(len(confidence), np.int64), who)


def both_sides(
    members: np.ndarray, nonmembers: np.ndarray, images: int = 1
) -> tuple[Samples, Samples]:
    """Return both sides of an attack, with `images` images of each person in turn."""
    n = len(members)
    return (
        of_confidence(members, np.arange(n) // images),
        of_confidence(nonmembers, n + np.arange(len(nonmembers)) // images),
    )
