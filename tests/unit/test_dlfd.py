"""methods/dlfd.py: when synthesis rests, and that a resumed run knows of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dlfd_dist.methods import Probe
from tests.fakes.method_lab import lab


def probe(score: float) -> Probe:
    return Probe(1, 0.7, 0.7, score, 0.5, 0.8)


def made(**settings: Any):
    return lab("dlfd", dynamic=True, forget_threshold=0.1, **settings).method


def test_synthesis_rests_while_the_forgetting_score_is_at_most_the_threshold():
    method = made()
    assert method.synthesising
    for score, synthesises in ((0.2, True), (0.1, False), (0.05, False), (0.11, True)):
        assert method.observe(probe(score)) == {"synthesis": synthesises}
        assert method.synthesising is synthesises


def test_without_the_dynamic_strategy_synthesis_never_rests():
    method = made()
    method.cfg = replace(method.cfg, dynamic=False)
    assert [method.observe(probe(score))["synthesis"] for score in (0.2, 0.0)] == [True, True]


def test_a_step_synthesises_only_where_synthesis_does_not_rest():
    for score, told in ((0.2, True), (0.05, False)):
        found = lab("dlfd", dynamic=True, forget_threshold=0.1)
        found.method.observe(probe(score))
        _, numbers = next(found.walk())
        assert numbers["synthesised"] is told
        assert ("ot_cost" in numbers) is told


@pytest.mark.parametrize("score", [0.2, 0.05])
def test_a_resumed_run_knows_whether_synthesis_rests(score: float):
    before, after = made(), made()
    before.observe(probe(score))
    after.load_state_dict(before.state_dict())
    assert after.synthesising is before.synthesising
