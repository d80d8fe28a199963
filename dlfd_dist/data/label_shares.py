"""How labels are distributed in a set of images: of each class, or each label, its share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .manifest import Manifest
from .splits import Splits

ALIKE = 0.05
"""Two sets whose shares differ by no more count as having the same labels."""


def label_shares(labels: np.ndarray, num_outputs: int) -> np.ndarray:
    """Return the share of each label in a set of images, shape (num_outputs,).

    Parameters
    ----------
    labels : (N,) class numbers, whose shares add up to 1, or (N, L) zeros and ones of a multi-label
        task, of which each share is that of the images that have the label

    >>> label_shares(np.array([0, 0, 1, 0]), 3)
    array([0.75, 0.25, 0.  ])
    """
    if labels.ndim == 2:
        return labels.mean(axis=0)
    return np.bincount(labels, minlength=num_outputs) / max(1, len(labels))


@dataclass(frozen=True)
class ForgetLabels:
    """The label shares of the forget set beside those of the images that nobody trained on."""

    names: list[str]
    forget: np.ndarray
    unseen: np.ndarray

    @property
    def largest_difference(self) -> float:
        return float(np.abs(self.forget - self.unseen).max())

    @property
    def alike(self) -> bool:
        """Whether an attack that tells forgotten from unseen cannot live on the labels."""
        # Counts of images are exact, their shares are rounded.
        return self.largest_difference <= ALIKE + 1e-9

    @property
    def sentence(self) -> str:
        """Say where the labels differ most."""
        worst = int(np.abs(self.forget - self.unseen).argmax())
        return (
            f"The label {self.names[worst]} has a share of {self.forget[worst]:.2f} in the forget "
            f"set and of {self.unseen[worst]:.2f} in the test set, so that the labels alone tell "
            "forgotten from unseen images to some degree."
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "forget": dict(zip(self.names, self.forget.tolist(), strict=True)),
            "unseen": dict(zip(self.names, self.unseen.tolist(), strict=True)),
            "largest_difference": self.largest_difference,
            "alike": self.alike,
        }


def forget_labels(manifest: Manifest, splits: Splits) -> ForgetLabels | None:
    """Return the labels of the forget set beside those of test; None where nobody is forgotten."""
    if not len(splits.forget):
        return None
    forget, unseen = (
        label_shares(manifest.labels[ids], manifest.num_outputs)
        for ids in (splits.forget, splits.test)
    )
    return ForgetLabels(list(manifest.label_names), forget, unseen)
