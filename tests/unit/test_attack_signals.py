"""What an attack sees of a sample: against the definitions, and where probabilities round to 1."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax

from dlfd_dist.jobs.evaluation import Outputs, save_samples
from dlfd_dist.metrics import SIGNALS, attack_signals, modified_entropy, prediction_entropy
from dlfd_dist.run_dir import RunDir


def drawn(num: int = 40, classes: int = 5, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, scale, (num, classes)), rng.integers(0, classes, num)


def test_entropies_are_their_definitions():
    logits, labels = drawn()
    p = softmax(logits, axis=1)
    assert prediction_entropy(logits, labels) == pytest.approx(-(p * np.log(p)).sum(1))
    by_hand = [
        -(1 - row[y]) * np.log(row[y])
        - sum(row[i] * np.log(1 - row[i]) for i in range(len(row)) if i != y)
        for row, y in zip(p, labels, strict=True)
    ]
    assert modified_entropy(logits, labels) == pytest.approx(by_hand)


def test_entropies_of_several_labels_are_the_mean_of_two_class_ones():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 2, (30, 3)), rng.integers(0, 2, (30, 3))
    both = [np.stack([np.zeros(30), logits[:, j]], 1) for j in range(3)]
    for measure in (prediction_entropy, modified_entropy):
        by_label = [measure(pair, labels[:, j]) for j, pair in enumerate(both)]
        assert measure(logits, labels) == pytest.approx(np.mean(by_label, axis=0))


@pytest.mark.parametrize("right", [True, False])
def test_no_signal_is_lost_where_the_largest_probability_rounds_to_one(right: bool):
    """A margin of 40 to 60 logits: 1 - p is below the smallest step of a float at 1."""
    margins = np.linspace(40, 60, 9)
    logits = np.stack([margins, np.zeros(9), np.zeros(9)], 1)
    found = attack_signals(logits, np.full(9, 0 if right else 1))
    for name in ("loss", "confidence", "modified_entropy"):
        assert np.isfinite(found[name]).all()
        assert (np.diff(found[name]) * (1 if right else -1) > 0).all(), name
    assert (np.diff(found["entropy"]) > 0).all()


def test_every_signal_grows_with_the_logit_of_the_true_class():
    logits = np.stack([np.linspace(0.1, 4, 12), np.zeros(12), np.zeros(12)], 1)
    found = attack_signals(logits, np.zeros(12, int))
    assert tuple(found) == SIGNALS
    for name in SIGNALS[1:]:
        assert (np.diff(found[name]) > 0).all(), name
    assert found["correctness"].tolist() == [1.0] * 12


def test_samples_hold_what_every_figure_over_people_needs(tmp_path):
    logits, labels = drawn(6, 3)
    identities = np.array(["b", "b", "a", "c", "c", "a"])
    ids = {"forget": np.array([0, 1, 2]), "test": np.array([3, 4]), "val": np.array([], int)}
    parts = {
        name: Outputs(rows, identities[rows], labels[rows], logits[rows], logits[rows])
        for name, rows in ids.items()
    }
    save_samples(RunDir(tmp_path), parts, identities)
    held = load_file(RunDir(tmp_path).samples)
    assert held["forget.person"].tolist() == [1, 1, 0]
    assert held["test.person"].tolist() == [2, 2]
    assert not any(name.startswith("val.") for name in held)
    signals = attack_signals(held["test.logits"], held["test.labels"])
    assert -signals["loss"] == pytest.approx(held["test.loss"], rel=1e-5)
