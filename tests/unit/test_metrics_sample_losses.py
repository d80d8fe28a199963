"""Losses and confidences of single samples, against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlfd_dist.metrics import logit_scaled_confidence, sample_losses


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_sample_losses_are_torch_cross_entropy(scale):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, scale, (50, 7)), rng.integers(0, 7, 50)
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
    # Both compute in float64; the two log-sum-exps round differently.
    np.testing.assert_allclose(sample_losses(logits, labels), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_sample_losses_of_several_labels_are_the_mean_torch_bce(scale):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, scale, (50, 4)), rng.integers(0, 2, (50, 4))
    expected = F.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.float64), reduction="none"
    ).mean(1)
    # log1p(exp(x)) here, max(x, 0) + log1p(exp(-|x|)) there: rounding of float64.
    np.testing.assert_allclose(sample_losses(logits, labels), expected, rtol=1e-10, atol=1e-12)


def test_confidence_is_the_logit_of_the_true_class_probability():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 5)), rng.integers(0, 5, 40)
    p = torch.softmax(torch.tensor(logits), 1).numpy()[np.arange(40), labels]
    # 1 - p loses digits where p is near 1, so the naive form is good to about 1e-13 / (1 - p).
    np.testing.assert_allclose(
        logit_scaled_confidence(logits, labels), np.log(p) - np.log(1 - p), rtol=1e-9, atol=1e-9
    )


def test_confidence_of_several_labels_is_the_mean_logit_of_the_right_answer():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 3))
    p = np.where(labels == 1, 1 / (1 + np.exp(-logits)), 1 - 1 / (1 + np.exp(-logits)))
    # As above: 1 - p of the naive form.
    np.testing.assert_allclose(
        logit_scaled_confidence(logits, labels),
        (np.log(p) - np.log(1 - p)).mean(1),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([1e3, 0.0, 0.0], 0, 1e3 - math.log(2)),
        ([1e3, 0.0, 0.0], 1, -1e3),
        ([1e3, 1e3, -1e3], 0, 0.0),
        ([-1e3, -1e3, -1e3], 2, -math.log(2)),
    ],
)
def test_confidence_is_finite_where_the_probability_is_0_or_1(logits, label, expected):
    found = logit_scaled_confidence(np.array([logits]), np.array([label]))
    # exp(-1000) is 0 in float64, so only the last digits of 1e3 can differ.
    assert found[0] == pytest.approx(expected, rel=1e-14, abs=1e-12)


def test_confidence_leaves_the_logits_alone():
    logits = np.ones((3, 2))
    logit_scaled_confidence(logits, np.array([0, 1, 0]))
    assert np.array_equal(logits, np.ones((3, 2)))
