"""The planner's model of ranks: what it must say whatever the constants are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.plan.scaling import (
    IN_NODE,
    Link,
    Step,
    gather_bytes,
    step_bytes,
    step_seconds,
    useful_ranks,
)

STEP = Step(batch=256, iterations=15, width=512, parameters=11_200_000, images_per_s=1000.0)
SLOW = Link("slow", 1e6, 1e-3)


def test_one_rank_sends_nothing():
    assert not any(step_bytes(STEP, 1).values())


def test_features_are_those_of_the_batch_once_an_iteration_and_once_of_the_forget_batch():
    assert step_bytes(STEP, 4)["features"] == 16 * 0.75 * gather_bytes(STEP)
    assert step_bytes(replace(STEP, iterations=0), 4)["features"] == 0


def test_without_links_ranks_share_the_work_evenly():
    free = Link("free", float("inf"), 0.0)
    assert step_seconds(STEP, 1) / step_seconds(STEP, 8, free) == pytest.approx(8)


def test_what_every_rank_solves_by_itself_bounds_the_speed_up():
    step = replace(STEP, transport_s=0.1)
    assert step_seconds(step, 256) > 15 * 0.1
    assert useful_ranks(step, 64) < useful_ranks(STEP, 64)


def test_a_slower_link_never_takes_more_ranks():
    assert useful_ranks(STEP, 64, SLOW) < useful_ranks(STEP, 64, IN_NODE)


def test_more_ranks_are_not_taken_where_they_do_not_pay():
    assert useful_ranks(replace(STEP, batch=8), 64) <= 16
    assert useful_ranks(STEP, 1, SLOW) == 1
