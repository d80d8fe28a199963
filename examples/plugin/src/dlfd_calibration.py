"""Calibration error: how far the confidence of a model lies from the share of right answers.

Source: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from dlfd_dist.metrics import ModelOutputs, Outputs, custom_metrics

BINS = 10
"""Of equal width, over the confidences 0..1."""


@custom_metrics.register("calibration")
def calibration(model: ModelOutputs) -> dict[str, float]:
    """Expected calibration error on test and forget images, 0..1, lower is better.

    A model that was made unsure of the forgotten people alone is badly calibrated on them.
    """
    figures = {"test_calibration_error": calibration_error(model.test)}
    if len(model.forget.ids):
        figures["forget_calibration_error"] = calibration_error(model.forget)
    return figures


def calibration_error(outputs: Outputs) -> float:
    """Return the mean over bins of |accuracy - confidence|, weighted by their images."""
    if outputs.labels.ndim == 2:
        raise ValueError("the calibration error is for one label an image")
    probabilities = softmax(outputs.logits, axis=1)
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == outputs.labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(right))
