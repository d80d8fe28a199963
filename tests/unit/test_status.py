"""dlfd status, logs and the causes: what SLURM says, what run directories say, and who is right."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from dlfd_dist.run_dir import append_event
from launch.execute import states as module
from launch.execute.causes import cause
from launch.execute.journal import Ledger, attempts_file
from launch.execute.places import job_log
from launch.execute.slurm import _expanded, seconds
from launch.verbs.task import main as task_main
from tests.fakes.campaigns import Campaigns, make_campaigns

LONG_AGO = "2020-01-01T00:00:00"
NOW = "the moment of the test"


def at(end: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S") if end == NOW else end


@pytest.fixture
def nothing_submitted(tmp_path, monkeypatch, capfd) -> Campaigns:
    return make_campaigns(tmp_path, monkeypatch, capfd)


@pytest.fixture
def campaigns(nothing_submitted: Campaigns) -> Campaigns:
    assert nothing_submitted.submit("train", "seed=0,1").status == 0
    return nothing_submitted


def task(words: list[str]) -> int:
    """Do what a job does on its rank, and give this process its signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        # The stream that a job has, which follows the descriptor; pytest's own does not.
        with open(2, "w", closefd=False) as stream, contextlib.redirect_stderr(stream):
            return task_main(words)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        ("PREEMPTED", True, {}, "restarting"),
        ("REQUEUE_HOLD", True, {}, "held"),
        ("SOMETHING_NEW", True, {}, "queued"),
        ("NODE_FAIL", False, {"end": NOW}, "restarting"),
        ("PREEMPTED", False, {"end": NOW}, "restarting"),
        ("REQUEUED", False, {}, "restarting"),
        ("NODE_FAIL", False, {"end": LONG_AGO}, "failed"),
        ("NODE_FAIL", False, {"end": NOW, "controller": "NODE_FAIL"}, "restarting"),
        ("NODE_FAIL", False, {"end": NOW, "controller": "CANCELLED"}, "cancelled"),
        ("PREEMPTED", False, {"end": NOW, "controller": "PENDING"}, "queued"),
        ("RUNNING", False, {"controller": "RUNNING"}, "running"),
        ("RUNNING", False, {"controller": "FAILED"}, "failed"),
        ("RUNNING", False, {}, "lost"),
        ("FAILED", False, {"end": LONG_AGO, "code": "1:0"}, "failed"),
        ("COMPLETED", False, {"end": LONG_AGO}, "failed"),
        ("CANCELLED", False, {"end": LONG_AGO}, "cancelled"),
        ("CANCELLED by 1000", False, {"end": LONG_AGO}, "cancelled"),
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


@pytest.mark.parametrize(
    ("slurm", "expected", "why"),
    [
        ("PENDING", "cancelled", "it was cancelled: SLURM still has its job as PENDING."),
        ("CANCELLED", "cancelled", "it was cancelled: SLURM still has its job as CANCELLED."),
        ("REQUEUED", "cancelled", "it was cancelled: SLURM still has its job as REQUEUED."),
        ("COMPLETING", "running", "it was cancelled and is ending: SLURM still has its job as "
         "COMPLETING."),
    ],
)  # fmt: skip
def test_a_run_that_was_cancelled_is_not_called_queued(campaigns: Campaigns, slurm, expected, why):
    assert campaigns.run("cancel", campaigns.path / "seed=0").status == 0
    # squeue lists a job for some seconds after scancel.
    campaigns.slurm.set("101_0", slurm, queued=True)
    found = campaigns.states()
    assert (found["seed=0"]["state"], found["seed=0"]["cause"]) == (expected, why)
    assert found["seed=1"]["state"] == "queued"


def test_a_cancelled_job_that_squeue_still_lists_is_not_waited_for(campaigns: Campaigns):
    campaigns.run("cancel", campaigns.path)
    campaigns.slurm.set("101", "PENDING", queued=True)
    said = campaigns.run("retry", campaigns.path, "--failed")
    assert "queued already" not in said.out
    assert set(campaigns.states()) == {"seed=0", "seed=1"}
    assert state(campaigns) == "queued"
    assert (
        len([words for words in campaigns.slurm.calls("sbatch") if "--test-only" not in words]) > 2
    )


def states_asked(campaigns: Campaigns) -> list[list[str]]:
    return [words for words in campaigns.slurm.calls("sacct") if "--duplicates" not in words]


def test_one_sacct_serves_all_runs_and_its_answer_is_kept_a_while(campaigns, monkeypatch):
    campaigns.slurm.set("101", "FAILED", end=LONG_AGO, code="1:0")
    for _ in range(3):
        assert state(campaigns) == "failed"
    assert len(states_asked(campaigns)) == 1
    monkeypatch.setattr(module, "SACCT_EVERY_S", 0.0)
    campaigns.states()
    assert len(states_asked(campaigns)) == 2
    # What an ended job used is asked once.
    assert len(campaigns.slurm.calls("sacct")) == 3


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


def test_a_job_that_accounting_has_not_heard_of_is_as_the_controller_says(campaigns: Campaigns):
    campaigns.slurm.refuse("sacct", "Slurm accounting storage is disabled")
    campaigns.start("seed=0")
    campaigns.slurm.set("101", "?", queued=False, controller="CANCELLED")
    assert state(campaigns) == "cancelled"
    # Nor does it become unknown when the controller has dropped it.
    campaigns.slurm.set("101", "?", queued=False, controller="PURGED")
    assert state(campaigns) == "cancelled"
    assert campaigns.run("retry", campaigns.path, "--failed").status == 0
    assert state(campaigns) == "restarting"


def test_jobs_of_others_are_not_taken_for_those_of_this_user(campaigns: Campaigns):
    campaigns.slurm.refuse("sacct", "Slurm accounting storage is disabled")
    campaigns.slurm.set("101", "?", queued=False, controller="RUNNING", user="other(12345)")
    assert state(campaigns) == "lost"


def test_a_run_whose_job_slurm_forgot_is_lost_whatever_has_its_id_now(campaigns: Campaigns):
    with Ledger(campaigns.path).locked() as ledger:
        first = next(e for e in ledger.events() if e["event"] == "submitted")
        again = {"array": False, "name": "other", "report": False, "units": [["other"]]}
        ledger.append("submitted", job="09-train", job_id=first["job_id"], **again)
    found = campaigns.states()["seed=0"]
    assert found["state"] == "lost"
    assert "dlfd retry" in found["cause"]


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


@pytest.mark.parametrize("pack", ["1", "2"], ids=["alone", "packed"])
def test_a_run_out_of_restarts_is_failed_and_says_how_it_goes_on(
    nothing_submitted: Campaigns, monkeypatch, capfd, pack
):
    made = nothing_submitted
    assert made.submit("train", "seed=0,1", f"cluster.pack={pack}", "cluster.max_restarts=3")
    monkeypatch.setattr("dlfd_dist.__main__.run_ranks", _saves_at_step_7_and_stops)
    for name, value in (("JOB_ID", "101"), ("RESTART_COUNT", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("DLFD_MAX_RESTARTS", "3")
    job_id = "101"
    if pack == "1":
        job_id = "101_0"
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "101")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    (job,) = made.path.glob("jobs/01-001-*.json")
    capfd.readouterr()
    # Not 75: the batch script would call it a start that is to be followed by another.
    assert task([str(made.path), job.stem, "0"]) == 1
    log = job_log(made.path, job.stem, job_id)
    log.write_text(capfd.readouterr().err)
    made.slurm.set(job_id, "FAILED", end=LONG_AGO, code="1:0")
    found = made.states()["seed=0"]
    assert found["state"] == "failed"
    assert found["cause"] == (
        "stopped after 3 restarts, cluster.max_restarts=3; 'dlfd retry CAMPAIGN --failed' or a "
        "higher limit goes on from step 7."
    )
    if pack == "2":  # it shared the rank, and never began
        assert "goes on from there" in made.states()["seed=1"]["cause"]
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    again = made.run("retry", made.path, "--failed", "--json").json
    assert "seed=0" in [run["run"] for run in again["runs"]]


def _saves_at_step_7_and_stops(configs, _ready) -> int:
    (run,) = (Path(config.run.root) for config in configs)
    (checkpoints,) = run.glob("seed=0*/checkpoints")
    (checkpoints / "latest").write_text("step_7\n")
    return 75


def test_a_run_that_may_be_started_again_ends_with_75(campaigns: Campaigns, monkeypatch):
    monkeypatch.setattr("dlfd_dist.__main__.run_ranks", _saves_at_step_7_and_stops)
    monkeypatch.setenv("SLURM_JOB_ID", "101")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("DLFD_MAX_RESTARTS", "3")
    assert task([str(campaigns.path), "01-001-train", "0"]) == 75
    assert "max_restarts" not in campaigns.run("status", campaigns.path).out


def test_other_code_than_that_of_the_submission_is_told(campaigns: Campaigns, monkeypatch):
    assert campaigns.run("status", campaigns.path, "--json").json["code"] is None
    monkeypatch.setattr(
        "dlfd_dist.provenance._git", lambda *words: "f" * 40 if words[0] == "rev-parse" else ""
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


# --- followed until the end


def on_sleep(
    monkeypatch: pytest.MonkeyPatch, where: str, *then: Callable[[], object]
) -> list[float]:
    """Let each wait of a module do the next of these things at once; return how long they were."""
    waits: list[float] = []
    coming = iter(then)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        next(coming)()

    clock = types.SimpleNamespace(**{name: getattr(time, name) for name in dir(time)})
    clock.sleep = sleep
    monkeypatch.setattr(f"launch.verbs.{where}.time", clock)
    return waits


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_watch_slows_down_and_ends_with_the_last_run(campaigns: Campaigns, monkeypatch):
    folder = campaigns.start("seed=0")

    def end_all() -> None:
        (folder / "result.json").write_text(json.dumps({"device_seconds": 1.0}))
        campaigns.slurm.set("101_1", "FAILED", end=LONG_AGO, code="1:0")

    waits = on_sleep(monkeypatch, "status", *[lambda: None] * 10, end_all)
    told = campaigns.run("status", campaigns.path, "--watch")
    assert told.status == 1  # as without --watch: a run has failed
    assert told.out.count("2 runs: ") == 12
    assert "1 failed, 1 finished" in told.out.rsplit("2 runs: ", 1)[1]
    assert waits[:3] == [2.0, 3.0, 4.5]
    assert waits == sorted(waits)
    assert max(waits) == 60.0


@pytest.mark.parametrize("words", [["status", "--watch"], ["logs", "-f"]])
def test_an_interrupted_look_ends_quietly(campaigns: Campaigns, monkeypatch, words):
    campaigns.start("seed=0")
    on_sleep(monkeypatch, words[0], interrupt)
    path = campaigns.path / "seed=0" if words[0] == "logs" else campaigns.path
    told = campaigns.run(*words, path)
    assert (told.status, told.err) == (130, "")


@pytest.mark.parametrize("rank", [None, 1])
def test_a_log_is_followed_until_its_run_has_ended(campaigns: Campaigns, monkeypatch, rank):
    folder = campaigns.start("seed=0")
    key = campaigns.states()["seed=0"]["key"]
    log = folder / "logs" / ("console.log" if rank is None else "rank_0001.jsonl")

    def say(text: str) -> None:
        line = text if rank is None else json.dumps({"time": 0, "message": text.strip()})
        with log.open("a") as file:
            file.write(line if rank is None else line + "\n")

    def end() -> None:
        say("the end" if rank is None else "the end\n")
        ended = {"event": "end", "time": 1.0, "status": 1}
        append_event(attempts_file(campaigns.path, key), ended)
        campaigns.slurm.set("101_0", "FAILED", end=LONG_AGO, code="1:0")

    say("first\n")
    monkeypatch.setattr("launch.verbs.logs.ASK_S", 0.0)
    then = [lambda: say("second\n"), lambda: None, end]
    waits = on_sleep(monkeypatch, "logs", *then, lambda: None, lambda: None)
    more = [] if rank is None else ["--rank", rank]
    told = campaigns.run("logs", campaigns.path / "seed=0", "-f", *more)
    assert told.status == 0
    assert [line.split()[-1] for line in told.out.splitlines()] == ["first", "second", "end"]
    assert 3 <= len(waits) <= 5
    # Without -f it is read to its present end.
    assert campaigns.run("logs", campaigns.path / "seed=0", *more).out == told.out


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
def test_a_wrong_word_is_one_sentence(nothing_submitted: Campaigns, words, message):
    told = nothing_submitted.run(*words)
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
        ("FAILED", "0:53", None, "", "does not see the directory of the campaign"),
        ("FAILED", "0:60", None, "", "ended by signal 60"),
        ("", "", None, "", "nobody wrote down why"),
        ("CANCELLED", "0:15", None, "", "it was cancelled."),
    ],
)
def test_every_end_has_one_readable_cause(slurm, code, status, log, expected, tmp_path: Path):
    file = tmp_path / "log"
    file.write_text(log)
    told, lines = cause(slurm, code, status, [file])
    assert expected in told
    assert told.endswith(".")
    assert lines == log.splitlines()


def test_a_line_of_sacct_stands_for_every_pending_task():
    assert list(_expanded("7_[0-2,5%2]")) == ["7_0", "7_1", "7_2", "7_5"]
    assert list(_expanded("7_3")) == ["7_3"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("30", 1800), ("30:30", 1830), ("2:00:00", 7200), ("1-02", 93600), ("1-02:30", 95400),
     ("infinite", None), ("00:00:01.5", 1.5)],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_writes_them(limit, expected):
    assert seconds(limit) == expected
