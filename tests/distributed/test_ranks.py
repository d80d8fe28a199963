"""tests/fakes/ranks.py: a fault on a rank fails its test, and the next test has sound ranks."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from dlfd_dist.runtime.collectives import Collectives
from tests.fakes.ranks import StandingRanks


def _sum(group: Collectives, value: float) -> float:
    return float(group.all_reduce_sum(torch.tensor(value * (1 + group.rank))))


def _fail_on_rank_1(group: Collectives) -> float:
    if group.rank == 1:
        raise ZeroDivisionError("on this rank alone")
    return _sum(group, 1.0)


def _end_on_rank_1(group: Collectives) -> float:
    if group.rank == 1:
        os._exit(9)
    return _sum(group, 1.0)


def _end_later(group: Collectives) -> None:
    """Answer first, and end before the next function comes."""
    if group.rank == 1:
        threading.Timer(1.0, os._exit, (9,)).start()


def _wait_on_rank_1(group: Collectives) -> None:
    if group.rank == 1:
        time.sleep(60)


@pytest.fixture
def two():
    group = StandingRanks(2)
    yield group
    group.kill()


def test_ranks_stay_up_between_functions(two):
    assert two.run(_sum, 1.0) == [3.0, 3.0]
    processes = [process.pid for process in two.processes]
    assert two.run(_sum, 2.0) == [6.0, 6.0]
    assert [process.pid for process in two.processes] == processes


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            _fail_on_rank_1,
            "(?s)rank 1: Traceback.*_fail_on_rank_1.*ZeroDivisionError: on this rank",
        ),
        (_end_on_rank_1, "rank 1 ended without an answer"),
    ],
)
def test_a_fault_on_a_rank_is_told_and_the_next_function_gets_new_ranks(two, function, message):
    assert two.run(_sum, 1.0) == [3.0, 3.0]
    with pytest.raises(AssertionError, match=message):
        two.run(function)
    assert two.run(_sum, 1.0) == [3.0, 3.0]


def test_a_rank_that_ends_after_its_answer_is_noticed(two):
    two.run(_end_later)
    two.processes[1].join(20)
    with pytest.raises(AssertionError, match="rank 1 ended"):
        two.run(_sum, 1.0)
    assert two.run(_sum, 1.0) == [3.0, 3.0]


def test_a_rank_that_hangs_is_ended(two):
    with pytest.raises(AssertionError, match=r"ranks \[1\] took too long"):
        two.run(_wait_on_rank_1, timeout_s=2)
    assert two.run(_sum, 1.0) == [3.0, 3.0]
