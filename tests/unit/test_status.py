"""dlfd status, logs and the causes: what SLURM says, what run directories say, and who is right."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from launch.campaign import states as module
from launch.campaign.causes import cause
from launch.campaign.slurm import _expanded, minutes
from tests.fakes.campaigns import Campaigns, make_campaigns

LONG_AGO = "2020-01-01T00:00:00"
NOW = "the moment of the test"


def at(end: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S") if end == NOW else end


@pytest.fixture
def campaigns(tmp_path, monkeypatch, capfd) -> Campaigns:
    made = make_campaigns(tmp_path, monkeypatch, capfd)
    assert made.submit("train", "seed=0,1").status == 0
    return made


def state(campaigns: Campaigns, label: str = "seed=0") -> str:
    return campaigns.states()[label]["state"]


@pytest.mark.parametrize(
    ("slurm", "queued", "more", "expected"),
    [
        ("PENDING", True, {}, "queued"),
        ("PENDING", True, {"reason": "Dependency"}, "waiting"),
        ("PENDING", True, {"reason": "DependencyNeverSatisfied"}, "blocked"),
        ("PENDING", True, {"reason": "JobHeldUser"}, "held"),
        ("RUNNING", True, {}, "running"),
        ("COMPLETING", True, {}, "running"),
        ("REQUEUED", True, {}, "restarting"),
        ("SOMETHING_NEW", True, {}, "queued"),
        ("NODE_FAIL", False, {"end": NOW}, "restarting"),
        ("PREEMPTED", False, {"end": NOW}, "restarting"),
        ("REQUEUED", False, {}, "restarting"),
        ("NODE_FAIL", False, {"end": LONG_AGO}, "failed"),
        ("RUNNING", False, {}, "restarting"),
        ("FAILED", False, {"end": LONG_AGO, "code": "1:0"}, "failed"),
        ("COMPLETED", False, {"end": LONG_AGO}, "failed"),
        ("CANCELLED", False, {"end": LONG_AGO}, "cancelled"),
        ("TIMEOUT", False, {"end": LONG_AGO}, "failed"),
        ("OUT_OF_MEMORY", False, {"end": LONG_AGO}, "failed"),
    ],
)
def test_no_word_of_slurm_makes_an_unfinished_run_finished(
    campaigns: Campaigns, slurm, queued, more, expected
):
    ended = {"end": at(more["end"])} if "end" in more else {}
    campaigns.slurm.set("101", slurm, queued=queued, **{**more, **ended})
    assert state(campaigns) == expected


def test_a_result_is_finished_whatever_slurm_says(campaigns: Campaigns):
    campaigns.start("seed=0")
    campaigns.end("seed=0", 0)
    campaigns.slurm.set("101_0", "NODE_FAIL", end=LONG_AGO)
    assert (state(campaigns), state(campaigns, "seed=1")) == ("finished", "queued")
    told = campaigns.run("status", campaigns.path, "--json").json
    assert told["finished_device_hours"] == 1.0
    assert told["counts"] == {"finished": 1, "queued": 1}


def test_a_run_that_waits_again_after_a_start_is_restarting(campaigns: Campaigns):
    campaigns.start("seed=0")
    campaigns.slurm.set("101_0", "PENDING", queued=True)
    assert state(campaigns) == "restarting"


def test_one_sacct_serves_all_runs_and_its_answer_is_kept_a_while(campaigns, monkeypatch):
    campaigns.slurm.set("101", "FAILED", end=LONG_AGO, code="1:0")
    for _ in range(3):
        assert state(campaigns) == "failed"
    assert len(campaigns.slurm.calls("sacct")) == 1
    monkeypatch.setattr(module, "SACCT_EVERY_S", 0.0)
    campaigns.states()
    assert len(campaigns.slurm.calls("sacct")) == 2


def test_without_accounting_squeue_and_run_directories_tell(campaigns: Campaigns):
    campaigns.slurm.refuse("sacct", "Slurm accounting storage is disabled")
    assert state(campaigns) == "queued"
    campaigns.start("seed=0")
    campaigns.end("seed=0", 2, "dlfd: There is no image.\n")
    campaigns.slurm.set("101", "?", queued=False)
    found = campaigns.states()
    assert found["seed=0"]["state"] == "failed"
    assert found["seed=0"]["cause"] == "There is no image."
    # Nobody knows what became of the other: that is said, and it is not called finished.
    assert found["seed=1"]["state"] == "lost"


def test_without_any_command_a_silent_run_is_not_called_running(campaigns, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert state(campaigns) == "unknown"
    campaigns.start("seed=0")
    assert state(campaigns) == "running"
    monkeypatch.setattr(module, "SILENT_S", -1.0)
    assert state(campaigns) == "lost"


def test_status_shows_the_cause_the_lines_and_the_log(campaigns: Campaigns):
    folder = campaigns.start("seed=0")
    campaigns.end("seed=0", 1, "noise\nTraceback\n  File x\nValueError: seven is not eight\n")
    campaigns.slurm.set("101", "FAILED", end=LONG_AGO, code="1:0")
    told = campaigns.run("status", campaigns.path)
    assert told.status == 1
    assert "ValueError: seven is not eight." in told.out
    assert "| ValueError: seven is not eight" in told.out
    assert str(folder / "logs" / "console.log") in told.out
    assert "noise" not in told.out


def test_other_code_than_that_of_the_submission_is_told(campaigns: Campaigns, monkeypatch):
    assert campaigns.run("status", campaigns.path, "--json").json["code"] is None
    monkeypatch.setattr(
        "launch.campaign.code._git", lambda *words: "f" * 40 if words[0] == "rev-parse" else ""
    )
    note = campaigns.run("status", campaigns.path, "--json").json["code"]
    assert "at ffffffffffff now" in note


def test_logs_name_what_is_there(campaigns: Campaigns):
    run = campaigns.path / "seed=0"
    early = campaigns.run("logs", run)
    assert early.status == 2
    assert "has not begun" in early.err
    folder = campaigns.start("seed=0")
    (folder / "logs" / "console.log").write_text("step one\n")
    (folder / "logs" / "rank_0001.jsonl").write_text('{"time": 0, "message": "from rank 1"}\n')
    assert campaigns.run("logs", run).out == "step one\n"
    assert campaigns.run("logs", run, "--rank", "1").out.endswith("from rank 1\n")
    assert "There is no log" in campaigns.run("logs", run, "--rank", "7").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "nothing"], "nothing is not a campaign"),
        (["retry", "nothing"], "dlfd retry CAMPAIGN --failed"),
        (["cancel"], "Give one campaign or one run"),
        (["logs"], "Give one run"),
        (["logs", "x", "--rank", "one"], "--rank one is not allowed"),
        (["train", "--watch"], "--watch is an option of 'dlfd status' alone"),
        (["status", "--dry-run"], "--dry-run is not an option of 'dlfd status'"),
    ],
)
def test_a_wrong_word_is_one_sentence(campaigns: Campaigns, words, message):
    told = campaigns.run(*words)
    assert told.status == 2
    assert message in told.err
    assert told.err.count("\n") == 1


# --- causes and answers, taken apart


@pytest.mark.parametrize(
    ("slurm", "code", "status", "log", "expected"),
    [
        ("OUT_OF_MEMORY", "0:125", None, "", "cluster.mem_gb"),
        ("TIMEOUT", "0:0", None, "", "cluster.time_min"),
        ("NODE_FAIL", "1:0", None, "", "a node of it failed"),
        ("FAILED", "2:0", 2, "dlfd: No such file.\n", "No such file."),
        ("FAILED", "1:0", 1, "torch.OutOfMemoryError: CUDA out of memory\n", "GPU ran out"),
        ("FAILED", "1:0", None, "ModuleNotFoundError: No module named 'ot'\n", "named 'ot'"),
        ("FAILED", "1:0", 1, "OSError: [Errno 28] No space left on device\n", "disk is full"),
        ("FAILED", "0:9", None, "", "killed: most often memory ran out"),
        ("FAILED", "137:0", None, "", "killed: most often memory ran out"),
        ("FAILED", "0:11", None, "", "ended by SIGSEGV"),
        ("FAILED", "3:0", None, "", "exit status 3"),
        ("", "", None, "", "nobody wrote down why"),
        ("CANCELLED", "0:15", None, "", "it was cancelled."),
    ],
)
def test_every_end_has_one_readable_cause(slurm, code, status, log, expected, tmp_path: Path):
    file = tmp_path / "log"
    file.write_text(log)
    told, lines = cause(slurm, code, status, file)
    assert expected in told
    assert told.endswith(".")
    assert lines == log.splitlines()


def test_a_line_of_sacct_stands_for_every_pending_task():
    assert list(_expanded("7_[0-2,5%2]")) == ["7_0", "7_1", "7_2", "7_5"]
    assert list(_expanded("7_3")) == ["7_3"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("30", 30), ("30:30", 30.5), ("2:00:00", 120), ("1-02", 1560), ("1-02:30", 1590),
     ("infinite", float("inf"))],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_writes_them(limit, expected):
    assert minutes(limit) == expected
