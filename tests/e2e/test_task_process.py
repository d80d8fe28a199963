"""The process of a SLURM job: submitit loads our task, calls it, and keeps how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import submitit
from submitit.core.utils import DelayedSubmission

from launch.execute.task import Task
from launch.verbs.task import CampaignTask

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what starts a task as the process of a SLURM job does, and gives its end."""

    def run(task: Task | CampaignTask, **env: str) -> subprocess.CompletedProcess[str]:
        DelayedSubmission(task).dump(tmp_path / "7_submitted.pkl")
        given = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "submitit.core._submit", str(tmp_path)], capture_output=True,
            text=True, cwd=tmp_path, env={**os.environ, **given, **env},
        )  # fmt: skip

    return run


def test_a_run_that_is_refused_ends_with_2_and_one_sentence_and_submitit_knows(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    done = start(Task("train", ("data=synthetic", "train.lr=-1")))
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("dlfd: ")]
    assert "train.lr=-1.0 is not allowed" in sentence
    assert "Traceback" not in done.stderr
    job = submitit.SlurmJob(tmp_path, "7")
    assert "exit status 2; the log of the job says why" in str(job.exception())


def test_a_result_is_written_beside_what_a_start_that_was_killed_left(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    left = [tmp_path / f"7_{name}.pkl.save_tmp" for name in ("0_result", "submitted")]
    for file in left:
        file.write_bytes(b"half")
    start(Task("train", ("train.lr=-1",)))
    assert (tmp_path / "7_0_result.pkl").is_file()
    assert not any(file.exists() for file in left)
