"""A stage of a plan on several ranks: what becomes of the runs after one that ends the ranks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dlfd_dist.config import JobConfig, RuntimeConfig
from dlfd_dist.errors import BAD_INPUT, FAILED, STOPPED
from dlfd_dist.runtime.preemption import StopFlag
from launch.execute import here
from launch.execute.here import Progress, Runs

ENDS_THE_RANKS, FAILS, STOPS, FINISHES = "ends the ranks", "fails", "stops", "finishes"
CANNOT_BEGIN = "cannot begin"


class Place:
    """A run of a stage, and what becomes of it."""

    def __init__(self, number: int, fate: str, folder: Path):
        self.run = SimpleNamespace(
            label=f"run {number}", config=JobConfig(runtime=RuntimeConfig(world_size=2))
        )
        self.fate, self.is_claimed, self.is_finished = fate, False, False
        self.log = folder / f"{number}.jsonl"
        self.run_dir = SimpleNamespace(
            config=Path(f"{number}"), finished=lambda: self.is_finished, rank_log=lambda _: self.log
        )

    def claim(self) -> None:
        self.is_claimed = True

    def figures(self) -> str:
        return "NoMUS 0.5"


def carried_out(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *fates: str
) -> tuple[Runs, list[list[str]]]:
    """Run a stage on ranks that meet these fates; return it and the files of every start."""
    places = [Place(number, fate, folder) for number, fate in enumerate(fates)]
    starts: list[list[str]] = []

    def run_local(configs: Any, config_files: list[Path]) -> int:
        starts.append([str(file) for file in config_files])
        status = 0
        for file in config_files:
            place = places[int(str(file))]
            if place.fate != CANNOT_BEGIN:
                with place.log.open("a") as log:
                    log.write("begun\n")
            if place.fate == ENDS_THE_RANKS:
                return FAILED
            if place.fate == STOPS:
                return STOPPED
            if place.fate in (FAILS, CANNOT_BEGIN):
                status = BAD_INPUT
            place.is_finished = place.fate == FINISHES
        return status

    monkeypatch.setattr(here, "run_local", run_local)
    nothing = cast("Any", None)
    runs = Runs(nothing, nothing, nothing, Progress(len(places)), StopFlag())
    runs._run_on_ranks(cast("Any", places))
    assert all(place.is_claimed for place in places)
    return runs, starts


@pytest.mark.parametrize(
    ("fates", "starts", "failed"),
    [
        ([FINISHES, FINISHES], [["0", "1"]], []),
        ([FINISHES, ENDS_THE_RANKS, FINISHES, FINISHES], [["0", "1", "2", "3"], ["2", "3"]], [1]),
        ([ENDS_THE_RANKS, ENDS_THE_RANKS, FINISHES], [["0", "1", "2"], ["1", "2"], ["2"]], [0, 1]),
        ([FAILS, FINISHES, ENDS_THE_RANKS], [["0", "1", "2"]], [0, 2]),
        ([FAILS, ENDS_THE_RANKS, FINISHES], [["0", "1", "2"], ["2"]], [0, 1]),
        ([FAILS, FAILS, FAILS], [["0", "1", "2"]], [0, 1, 2]),
        ([CANNOT_BEGIN, CANNOT_BEGIN], [["0", "1"], ["1"]], [0, 1]),
        ([CANNOT_BEGIN] * 5, [["0", "1", "2", "3", "4"], ["1", "2", "3", "4"]], [0, 1, 2, 3, 4]),
        ([CANNOT_BEGIN, FINISHES], [["0", "1"]], [0]),
    ],
)
def test_a_run_that_ends_the_ranks_is_named_and_stops_no_other(
    monkeypatch, tmp_path, fates, starts, failed
):
    runs, started = carried_out(monkeypatch, tmp_path, *fates)
    assert started == starts
    assert sorted(runs.failures) == [f"run {number}" for number in failed]
    assert not runs.stop.requested


def test_a_stage_that_is_stopped_is_not_started_again_and_names_no_failure(monkeypatch, tmp_path):
    runs, started = carried_out(monkeypatch, tmp_path, FINISHES, STOPS, FINISHES)
    assert started == [["0", "1", "2"]]
    assert runs.stop.requested
    assert not runs.failures
