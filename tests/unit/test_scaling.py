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


def test_a_pass_takes_its_launches_however_few_its_images():
    launched = replace(STEP, pass_s=0.032)  # of 32 images
    assert step_seconds(launched, 8) == step_seconds(STEP, 8)
    assert step_seconds(launched, 64) > 15 * 2 * 0.032
    assert useful_ranks(launched, 64) < useful_ranks(STEP, 64)


def test_a_plan_that_comes_late_hides_behind_an_iteration_as_long_as_that_lasts():
    free = Link("free", float("inf"), 0.0)
    waits = replace(STEP, transport_s=0.1)
    late = replace(waits, lag=True)
    without = replace(STEP, iterations=0)
    # Of one rank an iteration takes .512 s, of 64 ranks .008 s.
    assert step_seconds(waits, 1, free) - step_seconds(late, 1, free) == pytest.approx(14 * 0.1)
    assert step_seconds(late, 64, free) == pytest.approx(
        step_seconds(without, 64, free) + 0.004 + 15 * 0.008 + 0.1 + 13 * 0.092
    )
    assert step_seconds(replace(late, iterations=0), 8) == step_seconds(without, 8)


@pytest.mark.parametrize("iterations", [1, 2, 3, 15])
@pytest.mark.parametrize("transport_s", [0.001, 0.03, 0.3])
def test_a_late_plan_is_never_waited_for_longer(iterations, transport_s):
    waits = replace(STEP, iterations=iterations, transport_s=transport_s)
    late = replace(waits, lag=True)
    for ranks in (1, 8, 64):
        assert step_seconds(late, ranks) <= step_seconds(waits, ranks)
