"""Folds of a cross-validation that keep the images of a person together.

Frames of one person are nearly equal: with one of them to learn from, a classifier knows the others
by the person, whatever it was asked to tell apart.
"""

from __future__ import annotations

import numpy as np

NUM_FOLDS = 5


def people_per_class(classes: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes that there are, and how many people have an image of each.

    Parameters
    ----------
    classes, people : (n,) the class of each image and whom it shows
    """
    pairs = np.unique(np.stack([classes, _numbers(people)]), axis=1)
    return np.unique(pairs[0], return_counts=True)


def person_folds(
    classes: np.ndarray, people: np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to learn from and the rows to be judged on, of each fold.

    No person is on both sides, and every fold has about the shares of the classes that all have.
    Five folds, fewer where a class has fewer people.

    Parameters
    ----------
    classes, people : (n,); every class with at least two people
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = int(people_per_class(classes, people)[1].min())
    folds = StratifiedGroupKFold(min(NUM_FOLDS, fewest), shuffle=True, random_state=seed)
    return list(folds.split(classes, classes, _numbers(people)))


def _numbers(people: np.ndarray) -> np.ndarray:
    return np.unique(people, return_inverse=True)[1]
