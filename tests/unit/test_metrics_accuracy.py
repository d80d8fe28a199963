"""Accuracy of one label and of several."""

from __future__ import annotations

import numpy as np
import pytest

from dlfd_dist.metrics import accuracy, accuracy_per_label, correct


def test_accuracy_of_one_label_counts_the_largest_logit():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.1, 0.2], [-1.0, -2.0, -3.0], [0.0, 5.0, 1.0]])
    labels = np.array([0, 2, 1, 0])
    assert correct(logits, labels).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert accuracy(logits, labels) == 0.5
    assert accuracy_per_label(logits, labels) is None


def test_accuracy_of_several_labels_is_their_mean():
    logits = np.array([[2.0, -1.0, 3.0], [-2.0, -1.0, 3.0]])
    labels = np.array([[1, 0, 0], [0, 1, 1]])
    assert correct(logits, labels).tolist() == [2 / 3, 2 / 3]
    assert accuracy(logits, labels) == pytest.approx(2 / 3, rel=1e-12)  # rounding alone
    assert accuracy_per_label(logits, labels) == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_an_empty_set_has_no_accuracy(shape):
    labels = np.zeros(shape, dtype=np.int64)
    assert accuracy(np.zeros((0, 2)), labels) is None
    assert accuracy_per_label(np.zeros((0, 2)), labels) is None
