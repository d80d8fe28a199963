"""Phases: every second belongs to one of them, and nothing is timed where nobody measures."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.runtime import phases
from dlfd_dist.runtime.phases import OTHER, measured, phase

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    now = [0.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    return now


def test_a_phase_does_not_count_what_is_in_the_phases_within_it(clock):
    with measured(CPU) as watch:
        clock[0] += 1
        with phase("outer"):
            clock[0] += 2
            with phase("inner"):
                clock[0] += 4
            clock[0] += 8
        seconds = watch.lap().seconds
    assert seconds == {OTHER: 1, "outer": 10, "inner": 4}


def test_a_whole_phase_counts_what_is_in_it(clock):
    with measured(CPU) as watch:
        with phase("probe", whole=True), phase("forward"):
            clock[0] += 3
        with phase("forward"):
            clock[0] += 5
        lap = watch.lap()
    assert lap.seconds == {OTHER: 0, "probe": 3, "forward": 5}
    assert lap.calls == {"probe": 1, "forward": 1}


def test_a_lap_begins_where_the_last_one_ended(clock):
    with measured(CPU) as watch:
        clock[0] += 1
        watch.lap()
        with phase("data"):
            clock[0] += 2
        assert watch.lap().seconds == {OTHER: 0, "data": 2}


def test_an_error_within_a_phase_ends_it(clock):
    def fail() -> None:
        with phase("data"):
            raise ValueError("a bad image")

    with measured(CPU) as watch:
        with pytest.raises(ValueError, match="bad image"):
            fail()
        clock[0] += 1
        assert watch.lap().seconds[OTHER] == 1


def test_without_a_stopwatch_nothing_is_timed(monkeypatch: pytest.MonkeyPatch):
    looks = []
    monkeypatch.setattr(phases.time, "perf_counter", lambda: looks.append(1) or 0.0)
    with phase("data"):
        looks_within = list(looks)
    assert looks == looks_within == []
