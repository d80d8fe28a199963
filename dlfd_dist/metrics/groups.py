"""Accuracy by group of people before and after unlearning, and whom it cost most.

A group is all images with one value in a column of the manifest, such as a gender. The change of a
group is its accuracy after minus before; its interval treats people, not images, as independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import stdtrit

from .people import MIN_PEOPLE


def accuracy_by_group(
    values: np.ndarray, people: np.ndarray, after: np.ndarray, before: np.ndarray | None = None
) -> dict[str, dict[str, Any]]:
    """Return what each group's accuracy is, by the group's value in sorted order.

    Parameters
    ----------
    values, people : (n,) group and person of each image
    after, before : (n,) share of each image's labels that is right, of the model delivered and of
        the one it began with; None without such a model

    Returns
    -------
    images, people, too_small, accuracy, and before, change, change_interval (None without a model
    to compare with, the interval also of fewer than two people)
    """
    by_group = {}
    for value in np.unique(values):
        rows = values == value
        persons = people[rows]
        own: dict[str, Any] = {
            "images": int(rows.sum()),
            "people": len(np.unique(persons)),
            "accuracy": float(after[rows].mean()),
            "before": None,
            "change": None,
            "change_interval": None,
        }
        own["too_small"] = own["people"] < MIN_PEOPLE
        if before is not None:
            change = after[rows] - before[rows]
            own["before"] = float(before[rows].mean())
            own["change"] = float(change.mean())
            own["change_interval"] = interval_over_people(change, persons)
        by_group[str(value)] = own
    return by_group


def interval_over_people(values: np.ndarray, people: np.ndarray) -> list[float] | None:
    """Return the 95 % interval of a mean over images whose people are the independent units.

    The variance is that of a ratio, of each person's sum over the number of images (Cochran 1977,
    section 6.3), with Student's t of people - 1. None of fewer than two people.
    """
    _, person = np.unique(people, return_inverse=True)
    num = int(person.max()) + 1 if len(person) else 0
    if num < 2:
        return None
    mean = values.mean()
    residuals = np.bincount(person, values - mean)
    error = np.sqrt(num / (num - 1) * (residuals**2).sum()) / len(values)
    half = stdtrit(num - 1, 0.975) * error
    return [float(mean - half), float(mean + half)]


def worst_group(groups: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Return the group whose accuracy fell most, beside the mean change over all images.

    Groups that are too small do not count; None where none is left, or nothing was before.
    """
    known = {k: g for k, g in groups.items() if g["change"] is not None and not g["too_small"]}
    if not known:
        return None
    name = min(known, key=lambda k: known[k]["change"])
    images = sum(g["images"] for g in groups.values())
    mean = sum(g["change"] * g["images"] for g in groups.values()) / images
    own = known[name]
    return {
        "group": name,
        "change": own["change"],
        "change_interval": own["change_interval"],
        "mean_change": mean,
    }
