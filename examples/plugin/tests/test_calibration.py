"""The metric does what it says, and its figures are in the result of a run."""

from __future__ import annotations

import numpy as np
import pytest
from dlfd_calibration import calibration_error
from test_random_label import people, trained

import dlfd_dist as dlfd
from dlfd_dist.metrics import Outputs


def outputs(confidence: float, right: int) -> Outputs:
    """Return ten answers with one confidence, so many of which are right."""
    logits = np.tile(np.log([1 - confidence, confidence]), (10, 1))
    labels = np.array([1] * right + [0] * (10 - right))
    return Outputs(np.arange(10), np.arange(10).astype(str), labels, logits, logits)


@pytest.mark.parametrize(("confidence", "right", "error"), [(0.8, 8, 0.0), (0.95, 5, 0.45)])
def test_the_error_is_how_far_confidence_lies_from_accuracy(confidence, right, error):
    assert calibration_error(outputs(confidence, right)) == pytest.approx(error)


def test_its_figures_are_in_the_result(tmp_path):
    run = dlfd.evaluate(
        trained(people(range(8))), retain=people(range(6)), forget=people(range(6, 8)),
        val=people(range(10, 14)), test=people(range(14, 18)), out=tmp_path / "run",
        settings={"metrics.custom": ["calibration"], "metrics.num_bootstrap": 5},
    )  # fmt: skip
    assert run.result["custom_metrics"].keys() == {
        "test_calibration_error", "forget_calibration_error",
    }  # fmt: skip
