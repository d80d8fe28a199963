"""launch/ledger.py: many writers, writers that die, and what the events mean together."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
from pathlib import Path

import pytest

from dlfd_dist.errors import RunDirError
from launch.execute import journal as module
from launch.execute.journal import NOWHERE, Ledger, Placement

UNITS = [["a", "b"], ["c"]]


def write_many(folder: str, writer: int) -> None:
    for number in range(25):
        with Ledger(Path(folder)).locked() as ledger:
            ledger.append("note", writer=writer, number=number, before=len(ledger.events()))


def submitted(ledger: Ledger, job: str, job_id: str, units: list[list[str]]) -> None:
    facts = {"job": job, "name": f"dlfd-{job}", "units": units, "array": len(units) > 1}
    ledger.append("submitted", job_id=job_id, report=False, **facts)


def test_concurrent_writers_lose_no_line_and_see_each_other(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(str(tmp_path), n)) for n in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    events = Ledger(tmp_path).events()
    assert len(events) == 75
    # Each writer counted under the lock: nobody wrote between its count and its line.
    assert [event["before"] for event in events] == list(range(75))


def test_a_line_that_a_crash_cut_off_hides_no_later_one(tmp_path: Path):
    ledger = Ledger(tmp_path)
    with ledger.locked():
        ledger.append("first")
    with ledger.file.open("a") as file:
        file.write('{"event": "cut of')
    with ledger.locked():
        ledger.append("last")
    assert [event["event"] for event in ledger.events()] == ["first", "last"]


@pytest.mark.parametrize(
    "line",
    ["[]", "7", "{}", '{"event": 1}', '{"event": "submitted", "job_id": null}',
     '{"event": "submitted", "job_id": ["7"]}'],
)  # fmt: skip
def test_a_line_that_no_dlfd_wrote_is_one_sentence(line: str, tmp_path: Path):
    ledger = Ledger(tmp_path)
    with ledger.locked():
        ledger.append("first")
    with ledger.file.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunDirError, match=r"ledger\.jsonl: event 2 is not an event"):
        ledger.events()


def test_a_line_is_on_disk_before_the_command_goes_on(tmp_path: Path, monkeypatch):
    """A login node may die between the line and the sbatch that it announces."""
    synced: list[str] = []
    ledger, sync = Ledger(tmp_path), os.fsync

    def watched(fd: int) -> None:
        sync(fd)
        synced.append(ledger.file.read_text())

    monkeypatch.setattr(os, "fsync", watched)
    with ledger.locked():
        ledger.append("submitting")
    assert [text.count("submitting") for text in synced] == [1]


def test_nothing_is_written_outside_the_lock(tmp_path: Path):
    with pytest.raises(AssertionError, match="under its lock"):
        Ledger(tmp_path).append("note")


def test_the_last_submission_says_where_a_run_is(tmp_path: Path):
    with Ledger(tmp_path).locked() as ledger:
        submitted(ledger, "01-train", "7", UNITS)
        submitted(ledger, "02-train", "9", [["b"]])
    assert ledger.placements() == {
        "a": Placement("01-train", "7_0"), "b": Placement("02-train", "9"),
        "c": Placement("01-train", "7_1"),
    }  # fmt: skip


def test_a_job_whose_id_was_given_again_is_nowhere(tmp_path: Path):
    with Ledger(tmp_path).locked() as ledger:
        submitted(ledger, "01-train", "7", UNITS)
        submitted(ledger, "02-train", "7", [["d"]])
        submitted(ledger, "03-train", "71", [["e"]])
    assert {key: place.job_id for key, place in ledger.placements().items()} == {
        "a": NOWHERE, "b": NOWHERE, "c": NOWHERE, "d": "7", "e": "71",
    }  # fmt: skip


def test_the_jobs_of_a_campaign_on_this_machine_share_the_id_of_its_process(tmp_path: Path):
    with Ledger(tmp_path).locked() as ledger:
        submitted(ledger, "01-train", "local:here:7", [["a"]])
        submitted(ledger, "02-unlearn", "local:here:7", [["b"]])
    assert {place.job_id for place in ledger.placements().values()} == {"local:here:7"}


def test_a_submission_without_an_answer_is_remembered_until_it_has_one(tmp_path: Path):
    with Ledger(tmp_path).locked() as ledger:
        for job in ("one", "two", "three"):
            ledger.append("submitting", job=job, name=job, units=[], array=False, report=False)
        submitted(ledger, "one", "1", [[]])
        ledger.append("refused", job="two", why="")
        assert [event["job"] for event in ledger.unanswered()] == ["three"]


def test_a_file_system_without_locks_keeps_every_line(tmp_path, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(logging.getLogger("dlfd_dist"), "propagate", True)
    with Ledger(tmp_path).locked() as ledger:
        ledger.append("planned", reused={})
    assert [event["event"] for event in ledger.events()] == ["planned"]
    assert "has no locks (No locks available)" in caplog.text


def test_a_ledger_that_stays_held_is_one_sentence(tmp_path, monkeypatch):
    def held(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "held")

    monkeypatch.setattr(fcntl, "lockf", held)
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.1)
    with (
        pytest.raises(RunDirError, match="has been held by another dlfd command"),
        Ledger(tmp_path).locked(),
    ):
        pass
