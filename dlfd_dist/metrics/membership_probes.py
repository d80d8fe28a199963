"""Attacks on features instead of losses: do the forgotten images still lie apart?

A method that shapes the losses of forgotten images to look unseen fools an attack by losses alone.
These look at the representation, and at nothing that an objective of ours optimises.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from .folds import NUM_FOLDS, people_per_class, person_folds
from .mia import CHANCE, auc_standard_error

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

NUM_NEIGHBOURS = 5
MAX_ROWS = 2000
"""Rows a side: more sharpen the figure by less than other people move it."""


@dataclass(frozen=True)
class MembershipProbes:
    """AUC of telling forgotten from unseen images by their features; 0.5 is chance.

    An attack is judged on people of whom it has seen no image, or it would know them by their
    faces. Two sets of a few people differ all the same: read the figures beside those of Retrained.
    """

    knn_auc: float
    linear_auc: float

    @property
    def best(self) -> float:
        """Return the larger AUC."""
        return max(self.knn_auc, self.linear_auc)

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def tells_apart(probes: MembershipProbes, *num_people: int) -> bool:
    """Return whether the better probe lies two standard errors above chance.

    The error is that of an AUC of as many independent samples as there are people, which is rather
    too large.
    """
    return probes.best - CHANCE > 2 * auc_standard_error(*num_people)


def membership_probes(
    forget: np.ndarray,
    unseen: np.ndarray,
    *,
    people: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
) -> MembershipProbes | None:
    """Return both probes, cross-validated over people; None with fewer than 10 rows a side, or of
    one person.

    k-NN by cosine distance (k = 5) and logistic regression on standardised features; as many rows
    are drawn of each side as the smaller has, at most 2000.

    Parameters
    ----------
    forget, unseen : features, (n, d) and (m, d)
    people : (n,) and (m,), whom each image shows
    """
    size = min(len(forget), len(unseen), MAX_ROWS)
    if size < 2 * NUM_FOLDS:
        return None
    generator = np.random.default_rng(seed)
    rows = [np.sort(generator.permutation(len(side))[:size]) for side in (forget, unseen)]
    features, shown = (
        np.concatenate([side[drawn] for side, drawn in zip(sides, rows, strict=True)])
        for sides in ((forget, unseen), people)
    )
    members = np.repeat((1, 0), size)
    if people_per_class(members, shown)[1].min() < 2:
        return None
    folds = person_folds(members, shown, seed)
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    knn = make_pipeline(Normalizer(), KNeighborsClassifier(NUM_NEIGHBOURS))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return MembershipProbes(*(_auc(probe, features, members, folds) for probe in (knn, linear)))


def _auc(
    probe: Pipeline,
    features: np.ndarray,
    members: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    scores = cross_val_predict(probe, features, members, cv=folds, method="predict_proba")
    return float(roc_auc_score(members, np.asarray(scores)[:, 1]))
