"""What a job does on a rank: the callable that submitit pickles, calls, and brings back."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from submitit.core.utils import DelayedSubmission

from dlfd_dist.runtime import preemption
from launch.execute.task import (
    MAX_RESTARTS,
    Task,
    data_reader,
    meet,
    remove_unfinished_files,
)
from launch.verbs.task import CampaignTask, say_what_differs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Give this process its environment back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# --- pickled


@pytest.mark.parametrize("task", [Task("train", ("a=b",)), CampaignTask(Path("/c"), "01", 3)])
def test_a_task_is_pickled_by_the_name_of_its_class_and_comes_back_the_same(task):
    blob = cloudpickle.dumps(task)
    assert pickle.loads(blob) == task  # noqa: S301 - our own bytes of the line above
    assert len(blob) < 300


def test_after_a_restart_a_task_is_the_same_without_what_it_has_read():
    task = CampaignTask(Path("/c"), "01", 3)
    assert data_reader() is data_reader()
    again = task.checkpoint()
    assert isinstance(again, DelayedSubmission)
    assert again.function == task
    assert vars(again.function) == vars(task)


# --- called by submitit


def test_a_rank_leaves_the_file_that_another_may_be_writing(tmp_path: Path):
    os.environ |= {
        "SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path), "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "1",
    }  # fmt: skip
    mine, others = tmp_path / "7_1_result.pkl.save_tmp", tmp_path / "7_submitted.pkl.save_tmp"
    for file in (mine, others):
        file.write_bytes(b"half")
    remove_unfinished_files()
    assert (mine.exists(), others.exists()) == (False, True)


# --- the job of a user's own executor


class Stops(Task):
    def work(self):
        os.kill(os.getpid(), int(self.verb))
        return 75, {}


@pytest.mark.parametrize(
    ("number", "ours", "asked"),
    [
        (signal.SIGUSR2, False, [signal.SIGUSR2]),
        (signal.SIGTERM, False, []),
        (signal.SIGUSR2, True, []),
    ],
)
def test_only_usr2_lets_submitit_requeue_and_never_in_a_script_of_ours(
    number: signal.Signals, ours: bool, asked: list[int], monkeypatch: pytest.MonkeyPatch
):
    called: list[int] = []
    monkeypatch.setattr(preemption, "_received", set())
    monkeypatch.setattr(preemption, "_early", preemption.StopFlag())
    signal.signal(signal.SIGUSR2, lambda number, _: called.append(number))
    os.environ["SLURM_NTASKS"] = "2"
    os.environ.pop(MAX_RESTARTS, None)
    if ours:
        os.environ[MAX_RESTARTS] = "5"
    with pytest.raises(SystemExit) as ended:
        Stops(str(int(number)))()
    assert (ended.value.code, called) == (75, asked)


def test_ranks_of_a_users_own_executor_meet_as_those_of_our_scripts_do():
    os.environ |= {
        "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "71", "SLURM_NTASKS": "4",
        "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_RESTART_COUNT": "2",
    }  # fmt: skip
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    meet()
    script = f". {ROOT}/slurm/lib/rendezvous.sh; echo $MASTER_ADDR $MASTER_PORT"
    there = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ)
    assert there.stdout.split() == [os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]]
    os.environ["MASTER_ADDR"] = "given"
    meet()
    assert os.environ["MASTER_ADDR"] == "given"


# --- what SLURM gave


@pytest.mark.parametrize(
    ("given", "gpus", "said"),
    [
        ({}, "none", ""),
        ({"SLURM_NTASKS": "3"}, "none", "asked for 4 ranks on 2 nodes, and SLURM started 3 on 2"),
        ({"SLURM_NNODES": "1"}, "none", "asked for 4 ranks on 2 nodes, and SLURM started 4 on 1"),
        ({}, "gres", "asked for 2 GPUs .* shows it 0"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, "gres", ""),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "gres", "asked for 2 GPUs .* shows it 1"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "per_task", ""),
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NTASKS": "3"}, "none", ""),
    ],
)
def test_other_ranks_nodes_or_gpus_than_the_plan_asked_for_are_told(
    given: dict[str, str], gpus: str, said: str, capsys: pytest.CaptureFixture[str]
):
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "RANK"):
        os.environ.pop(name, None)
    os.environ |= {
        "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4",
        "SLURM_NODEID": "0", "SLURM_NNODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", **given,
    }  # fmt: skip
    say_what_differs({"nodes": 2, "tasks_per_node": 2, "ray": False, "gpus": gpus})
    told = capsys.readouterr().err
    assert re.search(said, told) if said else not told
