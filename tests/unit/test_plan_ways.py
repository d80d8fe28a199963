"""What ot.solver=auto takes, by the rule of benchmarks/plans.py and by its stored figures."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks.figures import newest
from benchmarks.plans import AUTO, DEFAULT_ENTROPIC, EXACT, LAGGED, WAYS, Reached, fastest
from dlfd_dist.transport import chosen_solver

STORED = newest("plans_cpu2").read_text(encoding="utf-8")
AUTO_TAKES = re.findall(r"^\| (\d+)x(\d+) \|.*\| auto: (\w+) \|$", STORED, re.MULTILINE)


def reached(**changed: tuple[float, float]) -> dict[str, Reached]:
    """Return what the ways reached: one second each and the cost of exact, but for those named."""
    names = {"exact": EXACT, "lagged": LAGGED, "entropic": DEFAULT_ENTROPIC}
    given = {names[name]: Reached(*values) for name, values in changed.items()}
    return {way: given.get(way, Reached(1.0, 1.0)) for way in WAYS}


@pytest.mark.parametrize(
    ("entropic", "way"),
    [
        ((0.5, 1.0), DEFAULT_ENTROPIC),
        ((2.0, 1.0), EXACT),
        ((0.5, 0.98), EXACT),
        ((0.5, 0.991), DEFAULT_ENTROPIC),
        # A higher cost is what the synthesis is after.
        ((0.5, 1.1), DEFAULT_ENTROPIC),
    ],
    ids=["faster", "slower", "2 % below", "0.9 % below", "above"],
)
def test_the_fastest_way_near_the_exact_cost_is_taken(entropic, way):
    ways = reached(exact=(0.9, 1.0), entropic=entropic)
    assert fastest(ways) == way
    assert fastest(ways, AUTO) == way


def test_auto_does_not_lag_however_fast_that_is():
    ways = reached(exact=(0.9, 1.0), lagged=(0.1, 1.0))
    assert fastest(ways) == LAGGED
    assert fastest(ways, AUTO) == EXACT


def test_the_exact_way_always_qualifies():
    ways = {way: Reached(0.1, 0.5) for way in WAYS} | {EXACT: Reached(9.0, 1.0)}
    assert fastest(ways) == EXACT


def test_auto_takes_what_the_stored_figures_say():
    assert len(AUTO_TAKES) >= 3
    for num_retain, num_forget, solver in AUTO_TAKES:
        matrix = torch.empty(int(num_retain), int(num_forget))
        assert chosen_solver("auto", matrix) == solver, matrix.shape
