"""NoMUS against the published tables."""

from __future__ import annotations

import pytest

from dlfd_dist.metrics import nomus

MUFAC_README = {
    "Original": (0.5951, 0.2136, 0.5839),
    "Retrained": (0.488, 0.0445, 0.6995),
    "Fine-tuning": (0.6055, 0.2129, 0.5898),
    "CF-3": (0.5900, 0.2126, 0.5824),
    "NegGrad": (0.4048, 0.0485, 0.6539),
    "UNSIR stage 1": (0.5893, 0.2089, 0.5857),
    "UNSIR stage 2": (0.5925, 0.1990, 0.5972),
    "SCRUB": (0.5984, 0.1415, 0.6577),
    "Advanced NegGrad": (0.5633, 0.0953, 0.6863),
}

DLFD_REPOSITORY = [
    (0.632979, 0.192359, 0.624131),
    (0.608378, 0.054817, 0.749372),
    (0.619681, 0.027907, 0.781933),
    (0.646277, 0.163787, 0.659351),
]


@pytest.mark.parametrize("row", MUFAC_README)
def test_nomus_reproduces_the_mufac_table_of_machine_unlearning(row):
    """ndb796/MachineUnlearning README: test accuracy, forgetting score of the attack, final score.

    All nine rows hold to 1e-4. Rounding of the two inputs to 4 digits allows
    0.5 * 5e-5 + 5e-5 = 7.5e-5, that of the printed score another 5e-5 (1e-4 where it was cut off).
    """
    test_accuracy, score, printed = MUFAC_README[row]
    assert nomus(test_accuracy, score) == pytest.approx(printed, abs=1e-4)


@pytest.mark.parametrize(("test_accuracy", "score", "printed"), DLFD_REPOSITORY)
def test_nomus_reproduces_the_rows_of_the_dlfd_repository(test_accuracy, score, printed):
    # Six digits: 0.5 * 5e-7 + 5e-7 of the inputs and 5e-7 of the printed score.
    assert nomus(test_accuracy, score) == pytest.approx(printed, abs=1.25e-6)


@pytest.mark.parametrize(
    ("test_accuracy", "score", "weight", "expected"),
    [(1.0, 0.0, 0.5, 1.0), (0.0, 0.5, 0.5, 0.0), (0.8, 0.1, 1.0, 0.8), (0.8, 0.1, 0.0, 0.8)],
)
def test_nomus_weighs_utility_against_forgetting(test_accuracy, score, weight, expected):
    assert nomus(test_accuracy, score, weight) == pytest.approx(expected, rel=1e-12)  # rounding
