"""Attacks on features instead of losses: do the forgotten images still lie apart?

A method that shapes the losses of forgotten images to look unseen fools an attack by losses alone.
These look at the representation, and at nothing that an objective of ours optimises.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

NUM_FOLDS = 5
NUM_NEIGHBOURS = 5
MAX_ROWS = 2000
"""Rows a side: more sharpen the figure by less than other people move it."""


@dataclass(frozen=True)
class MembershipProbes:
    """AUC of telling forgotten from unseen images by their features; 0.5 is chance.

    Other people are other people: features that tell persons apart tell these sets apart too, in
    Retrained as well. Read them beside those of Retrained.
    """

    knn_auc: float
    linear_auc: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def membership_probes(
    forget: np.ndarray, unseen: np.ndarray, *, seed: int = 0
) -> MembershipProbes | None:
    """Return both probes, each by 5-fold cross-validation; None with fewer than 10 rows a side.

    k-NN by cosine distance (k = 5) and logistic regression on standardised features; as many rows
    are drawn of each side as the smaller has, at most 2000.

    Parameters
    ----------
    forget, unseen : features, (n, d) and (m, d)
    """
    size = min(len(forget), len(unseen), MAX_ROWS)
    if size < 2 * NUM_FOLDS:
        return None
    generator = np.random.default_rng(seed)
    sides = [side[np.sort(generator.permutation(len(side))[:size])] for side in (forget, unseen)]
    features, members = np.concatenate(sides), np.repeat((1, 0), size)
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    knn = make_pipeline(Normalizer(), KNeighborsClassifier(NUM_NEIGHBOURS))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return MembershipProbes(*(_auc(probe, features, members, seed) for probe in (knn, linear)))


def _auc(probe: Pipeline, features: np.ndarray, members: np.ndarray, seed: int) -> float:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(probe, features, members, cv=folds, method="predict_proba")
    return float(roc_auc_score(members, np.asarray(scores)[:, 1]))
