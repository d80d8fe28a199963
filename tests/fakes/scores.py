"""Random scores of members and nonmembers."""

from __future__ import annotations

import numpy as np


def draws(n: int, m: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return normal member and nonmember scores whose means differ by `shift`."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, m)
