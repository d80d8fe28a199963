"""The figures of SalUn (Fan et al., ICLR 2024) as its authors compute them.

Read in OPTML-Group/Unlearn-Saliency, Classification/main_random.py and evaluation/SVC_MIA.py.
scikit-learn takes as long to load as torch, so it is imported by what calls it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SALUN_FIGURES = ("forget_accuracy", "retain_accuracy", "test_accuracy", "salun_mia")
"""1 - forget accuracy is their UA, the others their RA, TA and MIA."""
MOST_PER_SIDE = 2000
"""Support vectors cost the square of the images: of more, so many are drawn. Theirs are all."""


def salun_mia(
    retain_losses: np.ndarray, test_losses: np.ndarray, forget_losses: np.ndarray
) -> float | None:
    """Return their MIA efficacy: the share of forgotten images an attack takes for never seen.

    A support vector classifier (RBF, C 3, gamma auto) on the probability of the true label learns
    to tell retain from test images, as many of either, and is asked about the forgotten ones. It
    is 1 where the model knows none of them; of Retrained it is what strangers would get. Their
    retain images are the first of a shuffled set; ours are drawn with seed 0.

    Parameters
    ----------
    retain_losses, test_losses, forget_losses : (n,) cross-entropies in nats
    """
    size = min(len(retain_losses), len(test_losses), MOST_PER_SIDE)
    if size < 2 or not len(forget_losses):
        return None
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    retain, test = (
        side[rng.permutation(len(side))[:size]] for side in (retain_losses, test_losses)
    )
    known = np.exp(-np.r_[retain, test])[:, None]
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(known, np.r_[np.ones(size), np.zeros(size)])
    return float(1 - attack.predict(np.exp(-forget_losses)[:, None]).mean())


def salun_gap(model: Mapping[str, float | None], other: Mapping[str, float | None]) -> float | None:
    """Return their average gap: the mean absolute difference of UA, RA, TA and MIA, 0..1.

    None where a figure is not known. The run-time gap of their tables is left out, as in theirs.
    """
    gaps = []
    for name in SALUN_FIGURES:
        own, reference = model.get(name), other.get(name)
        if own is None or reference is None:
            return None
        gaps.append(abs(own - reference))
    return sum(gaps) / len(gaps)
