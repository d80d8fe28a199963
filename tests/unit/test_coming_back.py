"""What brings a job back when the moment is bad: a signal before the ranks meet, a controller that
is away."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import DistBackendError

from dlfd_dist.errors import CollectiveError, RanksLostError
from dlfd_dist.jobs.lost_ranks import explained
from dlfd_dist.logs import close_rank_log, open_rank_log
from dlfd_dist.run_dir import RunDir
from dlfd_dist.runtime.collectives import Collectives

REPOSITORY = Path(__file__).parents[2]

EARLY = """
import os, signal, sys
from dlfd_dist.runtime.preemption import stop_flag
from launch.execute.task import mind_early_signals
mind_early_signals()
os.kill(os.getpid(), int(sys.argv[1]))
with stop_flag() as flag:
    print("asked to stop" if flag.requested else "not asked")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize(("ranks", "status", "said"), [("1", 75, ""), ("2", 0, "asked to stop\n")])
def test_a_signal_before_the_loop_ends_a_rank_alone_and_is_kept_by_one_of_several(
    number: signal.Signals, ranks: str, status: int, said: str
):
    """A rank that left by itself would leave the others waiting for it where ranks meet."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY, str(int(number))], capture_output=True, text=True,
        cwd=REPOSITORY, env={**os.environ, "SLURM_NTASKS": ranks},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, said), done.stderr


SCONTROL = """#!/bin/bash
# Refuses as often as `refusals` says; `ping` tells whether the controller is there.
cd "$(dirname "$0")" || exit
if [ "$1" = ping ]; then [ -e answers ]; exit; fi
if [ "$1 $2" = "show job" ]; then printf 'JobId=8\n   StdOut=%s\n' "$PWD/job.out"; exit; fi
if [ "$1" = show ]; then echo "SlurmdTimeout           = 40 sec"; exit; fi
echo "$*" >> calls
[ "$(wc -l < calls)" -gt "$(cat refusals)" ]
"""


def requeue(
    folder: Path, refusals: int, *, answers: bool, status: int = 75
) -> tuple[subprocess.CompletedProcess, int]:
    """End a batch script; return how it ended, and how often it asked scontrol."""
    (folder / "refusals").write_text(str(refusals))
    if answers:
        (folder / "answers").touch()
    sleep = f'#!/bin/bash\necho "$1" >> {folder}/slept\n'
    for name, text in (("scontrol", SCONTROL), ("sleep", sleep)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f". slurm/lib/requeue.sh; requeue_or_exit {status}"], capture_output=True,
        text=True, cwd=REPOSITORY, timeout=60,
        env={"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7",
             "SLURM_ARRAY_TASK_ID": "1"},
    )  # fmt: skip
    calls = (folder / "calls").read_text().splitlines()
    assert set(calls) == {"requeue 7_1"}
    return done, len(calls)


def test_a_controller_that_is_away_for_a_while_does_not_cost_the_run(tmp_path: Path):
    done, calls = requeue(tmp_path, refusals=6, answers=False)
    assert (done.returncode, calls, done.stderr) == (75, 7, "")


def test_a_controller_that_refuses_is_believed_after_three_times(tmp_path: Path):
    done, calls = requeue(tmp_path, refusals=100, answers=True)
    assert (done.returncode, calls) == (75, 3)
    assert "did not requeue 7_1" in done.stderr


def test_ranks_that_lost_a_node_wait_until_slurm_may_have_missed_it(tmp_path: Path):
    """Else the job could be given the dead node again."""
    done, calls = requeue(tmp_path, refusals=0, answers=True, status=76)
    assert (done.returncode, calls) == (76, 1)
    assert (tmp_path / "slept").read_text() == "55\n"
    assert "comes back in 55 s" in done.stderr


def test_a_job_whose_srun_missed_a_node_comes_back_though_its_ranks_were_killed(tmp_path: Path):
    said = "srun: error: Aborting, io error and missing step on node 1\nsrun: error: n1: Killed\n"
    (tmp_path / "job.out").write_text(said)
    done, calls = requeue(tmp_path, refusals=0, answers=True, status=137)
    assert (done.returncode, calls) == (76, 1)
    assert (tmp_path / "slept").read_text() == "55\n"


def test_a_job_that_was_killed_where_no_node_was_missed_does_not_come_back(tmp_path: Path):
    (tmp_path / "job.out").write_text("srun: error: n1: task 0: Killed\n")
    with pytest.raises(FileNotFoundError):  # scontrol was not asked to requeue
        requeue(tmp_path, refusals=0, answers=True, status=137)


def test_a_job_that_failed_does_not_come_back(tmp_path: Path):
    with pytest.raises(FileNotFoundError):  # scontrol was not asked
        requeue(tmp_path, refusals=0, answers=True, status=1)


# --- a rank that loses the others


class TwoRanks(Collectives):
    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Handler]:
    (tmp_path / "logs").mkdir()
    handler = open_rank_log(RunDir(tmp_path).rank_log(0), 0)
    yield handler
    close_rank_log(handler)


def write_word(folder: Path, age_s: float) -> None:
    event = {"time": time.time() - age_s, "level": "error", "rank": 1, "message": "it failed"}
    RunDir(folder).rank_log(1).write_text(json.dumps(event) + "\n{half a li")


def lose(folder: Path, log: logging.Handler) -> None:
    with explained(RunDir(folder), TwoRanks(), log):
        raise CollectiveError("Rank 0 lost the other ranks.")


@pytest.mark.parametrize("age_s", [None, 3600.0])
def test_a_rank_without_any_word_from_the_others_asks_to_come_back(
    age_s: float | None, tmp_path: Path, log: logging.Handler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setattr("dlfd_dist.jobs.lost_ranks.WORD_S", 0.2)
    if age_s is not None:
        write_word(tmp_path, age_s)
    with pytest.raises(RanksLostError, match="none of them wrote down why") as told:
        lose(tmp_path, log)
    assert told.value.exit_status == 76


@pytest.mark.parametrize(("nodes", "says"), [("2", True), ("1", False), ("", False)])
def test_a_rank_fails_with_the_one_that_said_why_or_on_one_node(
    nodes: str, says: bool, tmp_path: Path, log: logging.Handler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_NNODES", nodes)
    if says:
        write_word(tmp_path, 1.0)
    start = time.monotonic()
    with pytest.raises(CollectiveError) as told:
        lose(tmp_path, log)
    assert told.value.exit_status == 1
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("err", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset"), True),
        (DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo/"), False),
    ],
)
def test_what_ddp_raises_when_a_rank_is_gone_is_told_from_other_errors(
    err: Exception, lost: bool, tmp_path: Path, log: logging.Handler
):
    """On one node nobody waits for a word, and the rank fails."""
    expected = CollectiveError if lost else type(err)
    with pytest.raises(expected), explained(RunDir(tmp_path), TwoRanks(), log):
        raise err
    assert (RunDir(tmp_path).rank_log(0).read_text() == "") == lost


def test_a_full_disk_does_not_hide_why_a_rank_fails(
    tmp_path: Path, log: logging.Handler, monkeypatch: pytest.MonkeyPatch
):
    def full(_record: logging.LogRecord) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "emit", full)
    with pytest.raises(ZeroDivisionError), explained(RunDir(tmp_path), TwoRanks(), log):
        _ = 1 / 0


def test_a_rank_that_fails_leaves_word(tmp_path: Path, log: logging.Handler):
    with pytest.raises(ZeroDivisionError), explained(RunDir(tmp_path), TwoRanks(), log):
        _ = 1 / 0
    (line,) = RunDir(tmp_path).rank_log(0).read_text().splitlines()
    event = json.loads(line)
    assert (event["level"], event["message"]) == ("error", "ZeroDivisionError: division by zero")
    assert event["time"] == pytest.approx(time.time(), abs=60)
