"""How far classes stay apart in the features."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from dlfd_dist.metrics import Separation, class_separation
from dlfd_dist.metrics.folds import person_folds
from dlfd_dist.metrics.separation import linear_probe_accuracy, scatter_ratio, silhouette


def blobs(
    spread: float, sizes: tuple[int, ...] = (40, 40, 40), dim: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes), dim)[labels] + rng.normal(0, spread, (len(labels), dim)), labels


def alone(labels: np.ndarray) -> np.ndarray:
    """Return a person for each image."""
    return np.arange(len(labels))


def probe_accuracy(features: np.ndarray, labels: np.ndarray) -> float | None:
    return linear_probe_accuracy(features, labels, alone(labels))


def separation(features: np.ndarray, labels: np.ndarray) -> Separation:
    return class_separation(features, labels, alone(labels))


def test_separation_falls_as_the_classes_run_into_each_other():
    found = [separation(*blobs(spread)) for spread in (0.05, 0.4, 50.0)]
    for name in ("silhouette", "linear_probe_accuracy", "scatter_ratio"):
        near, middle, lost = (getattr(one, name) for one in found)
        assert near > middle > lost
    assert found[0].silhouette > 0.9
    assert found[0].linear_probe_accuracy == 1.0
    # Labels that mean nothing: silhouette 0, chance 1/3, scatter (C - 1) / (n - C) = 2 / 117.
    assert found[2].silhouette == pytest.approx(0, abs=0.05)
    assert found[2].linear_probe_accuracy == pytest.approx(1 / 3, abs=4 * 0.043)
    assert found[2].scatter_ratio == pytest.approx(2 / 117, abs=0.02)


def test_scatter_ratio_by_hand():
    # Means -1 and 1 around 0: between 4 * 1; within 4 * 0.5^2.
    features = np.array([[-1.5], [-0.5], [0.5], [1.5]])
    labels = np.array([0, 0, 1, 1])
    assert scatter_ratio(features, labels) == pytest.approx(4.0)
    # The unit and the place of the features do not matter, classes of unequal size weigh theirs.
    assert scatter_ratio(1e3 * features + 7, labels) == pytest.approx(4.0)
    assert scatter_ratio(features, np.array([0, 0, 0, 1])) == pytest.approx(3.0 / 2.0)


def test_silhouette_is_scikit_learns_by_cosine():
    features, labels = blobs(0.4)
    wanted = silhouette_samples(features, labels, metric="cosine").mean()
    assert silhouette(features, labels) == pytest.approx(wanted)
    norms = np.random.default_rng(1).uniform(0.1, 10, (len(labels), 1))
    assert silhouette(features * norms, labels) == pytest.approx(wanted)


def test_silhouette_of_many_rows_is_that_of_a_fixed_draw():
    features, labels = blobs(0.4, sizes=(1500, 1500))
    found = silhouette(features, labels)
    assert found == silhouette(features, labels)
    # A draw of 2000 of 3000: within a few standard errors, about 0.3 / sqrt(2000), of the whole.
    whole = silhouette_samples(features, labels, metric="cosine").mean()
    assert found != whole
    assert found == pytest.approx(whole, abs=0.03)


def test_linear_probe_sees_what_silhouette_does_not():
    # The class is one faint direction under others that are ten times as wide.
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    features = rng.normal(0, 10, (200, 6))
    features[:, 0] = 2 * labels - 1 + rng.normal(0, 0.1, 200)
    assert probe_accuracy(features, labels) == pytest.approx(1.0, abs=0.02)
    assert silhouette(features, labels) == pytest.approx(0, abs=0.05)


def test_linear_probe_of_unequal_classes_has_chance_one_half():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(400, 4)), np.repeat([0, 1], [360, 40])
    # Always the larger would be right in 0.9; four standard errors of 40 and 360 samples are 0.17.
    assert probe_accuracy(features, labels) == pytest.approx(0.5, abs=0.17)


def test_linear_probe_leaves_out_classes_too_small_to_divide():
    features, labels = blobs(0.05, sizes=(30, 30, 1))
    two = labels < 2
    assert probe_accuracy(features, labels) == probe_accuracy(features[two], labels[two])
    assert probe_accuracy(*blobs(0.05, sizes=(30, 1))) is None


def test_linear_probe_does_not_know_a_class_by_the_faces_in_it():
    """Frames of a person are nearly equal, and the classes mean nothing: by images the probe would
    look perfect."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 4)
    features = rng.normal(size=(60, 100))[people] + rng.normal(0, 0.01, (240, 100))
    labels = rng.integers(0, 2, 60)[people]
    assert probe_accuracy(features, labels) == 1.0
    found = linear_probe_accuracy(features, labels, people)
    assert found == pytest.approx(0.5, abs=0.2)  # three standard errors of 60 people


def test_a_class_of_few_people_has_fewer_folds():
    features, labels = blobs(0.05, sizes=(30, 30))
    people = np.r_[np.arange(30), np.repeat([100, 101], 15)]
    assert linear_probe_accuracy(features, labels, people) == 1.0
    assert len(person_folds(labels, people, 0)) == 2
    for learnt, judged in person_folds(labels, people, 0):
        assert not set(people[learnt]) & set(people[judged])
    assert len(person_folds(labels, alone(labels), 0)) == 5


@pytest.mark.parametrize(
    ("sizes", "wanted"), [((20,), [None] * 3), ((1, 1), [None, None, None]), ((), [None] * 3)]
)
def test_labels_that_divide_nothing_have_no_separation(sizes, wanted):
    found = separation(*blobs(0.1, sizes=sizes))
    assert list(found.to_dict().values()) == wanted


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_collapsed_features_are_not_separated(value):
    features, labels = np.full((60, 16), value), np.repeat([0, 1, 2], 20)
    found = separation(features, labels)
    assert (found.silhouette, found.scatter_ratio) == (0.0, 0.0)
    assert found.linear_probe_accuracy == pytest.approx(1 / 3, abs=0.05)


def test_classes_without_any_spread_have_no_ratio():
    assert scatter_ratio(np.repeat([[0.1], [0.7]], 20, axis=0), np.repeat([0, 1], 20)) is None


def test_separation_of_several_labels_is_the_mean_over_them():
    features, classes = blobs(0.4, sizes=(40, 40))
    noise = np.random.default_rng(1).integers(0, 2, 80)
    found = separation(features, np.stack([classes, noise, np.zeros(80, int)], 1)).to_dict()
    one, two = (separation(features, labels).to_dict() for labels in (classes, noise))
    # The third label is the same for all: it has no figures and does not count.
    assert found == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})
