"""How far apart the classes lie in feature space: the collapse of correlations as a number.

A method that destroys what the model knew, rather than forgetting some people, lets classes run
into each other (DLFD, "correlation collapse"); these figures fall, whatever the head still says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from .folds import people_per_class, person_folds

MAX_ROWS = 2000
"""Rows that the silhouette looks at: its cost is quadratic in them."""


@dataclass(frozen=True)
class Separation:
    """Class separation of features; a figure is None where the labels do not allow it."""

    silhouette: float | None
    linear_probe_accuracy: float | None
    scatter_ratio: float | None

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)


def class_separation(features: np.ndarray, labels: np.ndarray, people: np.ndarray) -> Separation:
    """Return the three figures, for several labels the mean of each over the labels.

    Parameters
    ----------
    features : (n, d)
    labels : (n,) classes, or (n, L) zeros and ones
    people : (n,) whom each image shows
    """
    columns = (labels if labels.ndim == 2 else labels[:, None]).T

    def mean(figure: Callable[[np.ndarray], float | None]) -> float | None:
        values = [v for column in columns if (v := figure(column)) is not None]
        return float(np.mean(values)) if values else None

    return Separation(
        mean(lambda column: silhouette(features, column)),
        mean(lambda column: linear_probe_accuracy(features, column, people)),
        mean(lambda column: scatter_ratio(features, column)),
    )


def silhouette(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean silhouette of the classes by cosine distance, -1..1; None for one class.

    Cosine, as in the transport cost: a linear head tells classes by direction, and images whose
    features only grew in norm should not decide. Of more than 2000 rows a fixed draw is taken.
    Source: Rousseeuw 1987.
    """
    from sklearn.metrics import silhouette_score

    if len(labels) > MAX_ROWS:
        rows = np.random.default_rng(0).permutation(len(labels))[:MAX_ROWS]
        features, labels = features[rows], labels[rows]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(features, labels, metric="cosine"))


def linear_probe_accuracy(
    features: np.ndarray, labels: np.ndarray, people: np.ndarray
) -> float | None:
    """Return the cross-validated accuracy of a linear classifier of the features, 0..1.

    The mean over classes of the share of each that is right, so that chance is 1 / classes
    whatever their sizes. Ridge regression on standardised features (closed form, hence the same
    each time), judged on people it did not see. Classes that fewer than two people show are left
    out; None where fewer than two remain. Source: Alain and Bengio 2016.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, counts = people_per_class(labels, people)
    if (counts >= 2).sum() < 2:
        return None
    kept = np.isin(labels, classes[counts >= 2])
    features, labels, people = features[kept], labels[kept], people[kept]
    probe = make_pipeline(StandardScaler(), RidgeClassifier(class_weight="balanced"))
    predicted = cross_val_predict(probe, features, labels, cv=person_folds(labels, people, 0))
    return float(balanced_accuracy_score(labels, predicted))


def scatter_ratio(features: np.ndarray, labels: np.ndarray) -> float | None:
    """Return trace(S_between) / trace(S_within), at least 0.

    S_between sums n_c |mean_c - mean|^2 over classes, S_within |x - mean_c|^2 over rows. 0 where
    the class means coincide, as when all features are the same; (C - 1) / (n - C) is expected of
    labels that mean nothing. None for one class, and where the means differ but no class has any
    spread. Source: Fisher 1936.
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        return None
    centre = features.mean(0)
    groups = [features[labels == label] for label in classes]
    between = sum(len(group) * ((group.mean(0) - centre) ** 2).sum() for group in groups)
    within = sum(((group - group.mean(0)) ** 2).sum() for group in groups)
    rounding = np.finfo(np.float64).eps * (features**2).sum()
    if between <= rounding:
        return 0.0
    return float(between / within) if within > rounding else None
