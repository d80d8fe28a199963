"""benchmarks/yardstick_seeds.py: a coverage outside the wanted range is said, beside its error."""

from __future__ import annotations

import pytest

from benchmarks.yardstick_seeds import COVERED, Row, outside


@pytest.mark.parametrize(
    ("share", "tables", "said"),
    [
        (0.95, 2000, ""),
        (0.97, 2000, ""),
        (0.972, 2000, "; above 0.970 by 0.002, less than its error of 0.004"),
        (0.972, 20000, "; above 0.970 by 0.002, more than its error of 0.001"),
        (0.90, 2000, "; below 0.930 by 0.030, more than its error of 0.007"),
    ],
)
def test_a_coverage_outside_the_wanted_range_is_said_beside_its_error(share, tables, said):
    assert outside(Row("coverage", 0.9, share, COVERED), tables) == said


def test_nothing_is_said_without_an_interval_or_of_other_figures():
    assert outside(Row("coverage", 0.7, None, COVERED), 2000) == ""
    assert outside(Row("found", 0.3, 0.99, "more"), 2000) == ""
