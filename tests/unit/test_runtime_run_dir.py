"""A run directory: who may have it, its events, and files that appear whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import (
    RunDir,
    append_event,
    read_events,
    replacing,
    truncate_events,
    write_json,
    write_text,
)


def test_a_claimed_directory_holds_config_and_identity(tmp_path):
    run_dir = RunDir(tmp_path / "größe 'x'" / "run")
    run_dir.claim("abc", {"data": "d1"}, "seed: 0\n")
    assert run_dir.config.read_text() == "seed: 0\n"
    held = json.loads(run_dir.identity.read_text())
    assert held == {"signature": "abc", "inputs": {"data": "d1"}}
    assert run_dir.logs.is_dir()
    assert run_dir.checkpoints.is_dir()
    assert not run_dir.finished()
    assert run_dir.rank_log(3).name == "rank_0003.jsonl"


def test_the_same_run_joins_its_directory_and_keeps_its_files(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.claim("abc", {}, "seed: 0\n")
    append_event(run_dir.metrics, {"step": 1})
    write_json(run_dir.result, {"nomus": 0.5})
    run_dir.claim("abc", {}, "seed: 0\n")
    assert read_events(run_dir.metrics) == [{"step": 1}]
    assert run_dir.finished()
    assert run_dir.read_result() == {"nomus": 0.5}


def test_another_run_is_refused_and_changes_nothing(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.claim("abc", {}, "seed: 0\n")
    with pytest.raises(RunDirError, match=r"holds another run \(signature abc, this one is def\)"):
        run_dir.claim("def", {}, "seed: 1\n")
    assert run_dir.config.read_text() == "seed: 0\n"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"train": {"lr": 0.2, "on": "all"}},
            "this one is def; train.lr is 0.1 there and 0.2 here)",
        ),
        ({"train": {"lr": 0.1}, "checkpoint": True}, "this one is def)"),
        ({"train": {"nesterov": True}}, "this one is def; train.nesterov is false there and true"),
        (
            {"seed": 1, "train": {"lr": 0.2, "on": "x", "nesterov": True}},
            '"all" there and "x" here)',
        ),
    ],
)
def test_a_refusal_names_what_the_other_run_has_set(settings, says, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    config = {"seed": 0, "checkpoint": "a/b", "train": {"lr": 0.1, "on": "all", "nesterov": False}}
    run_dir.claim("abc", {}, yaml.safe_dump(config))
    with pytest.raises(RunDirError) as refused:
        run_dir.check("def", {}, settings)
    assert says in str(refused.value)


@pytest.mark.parametrize("damage", ["", "a", "[1", None])
def test_a_refusal_needs_no_readable_settings(damage, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.claim("abc", {}, damage or "")
    if damage is None:
        run_dir.config.unlink()
    with pytest.raises(RunDirError, match=r"this one is def\): choose another"):
        run_dir.check("def", {}, {"seed": 1})


def test_an_empty_directory_may_be_claimed(tmp_path):
    RunDir(tmp_path).claim("abc", {}, "")
    assert RunDir(tmp_path).identity.is_file()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_run_directory_is_refused_untouched(kind, tmp_path):
    path = tmp_path / "photos"
    if kind == "folder":
        path.mkdir()
        (path / "a.png").write_bytes(b"x")
    else:
        path.write_bytes(b"x")
    with pytest.raises(RunDirError, match="exists and is not a run directory: choose another"):
        RunDir(path).claim("abc", {}, "")
    assert not (path / "run.json").exists()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RunDirError, match=r"run.dir=.*run cannot be written \(Not a directory\)"):
        RunDir(tmp_path / "file" / "run").claim("abc", {}, "")


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}"])
def test_a_damaged_identity_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirError, match=r"run.json is damaged"):
        RunDir(tmp_path).claim("abc", {}, "")


def test_events_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    events = [{"event": "start"}, {"step": 1}, {"step": 2}, {"step": 2, "probe": 1}, {"step": 3}]
    for event in events:
        append_event(path, event)
    truncate_events(path, 2)
    assert read_events(path) == events[:4]


def test_a_last_line_cut_off_by_a_crash_does_not_count(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_event(path, {"step": 1, "text": "größe\u2028x"})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_events(path) == [{"step": 1, "text": "größe\u2028x"}]
    truncate_events(path, 5)
    append_event(path, {"step": 2})
    assert [e["step"] for e in read_events(path)] == [1, 2]


def test_a_line_that_a_crash_cut_off_hides_no_later_one(tmp_path):
    path = tmp_path / "attempts.jsonl"
    append_event(path, {"event": "start"})
    with path.open("a") as file:
        file.write('{"event": "e')
    append_event(path, {"event": "start"})
    append_event(path, {"event": "end", "status": 0})
    assert [e["event"] for e in read_events(path)] == ["start", "start", "end"]


def test_a_file_of_events_that_is_not_there_is_empty(tmp_path):
    assert read_events(tmp_path / "metrics.jsonl") == []


class Unserialisable:
    pass


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"x": float("nan")}, ValueError, "not JSON compliant"),
        ({"x": Unserialisable()}, TypeError, "not JSON serializable"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_temporary(value, error, message, tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"x": 1})
    with pytest.raises(error, match=message):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_failed_write_of_a_text_leaves_the_old_one(tmp_path):
    """The encoding fails when the file is open already: written in place, it would be empty."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_replacing_shows_nothing_before_the_end_and_cleans_up_after_an_error(folder, tmp_path):
    target = tmp_path / "target"

    def fill(partial: Path) -> None:
        if folder:
            partial.mkdir()
            (partial / "inner").write_text("x")
        else:
            partial.write_text("x")

    def fail() -> None:
        with replacing(target) as partial:
            fill(partial)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with replacing(target) as partial:
        fill(partial)
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
