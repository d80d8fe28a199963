"""What a user of submitit expects of the jobs of `dlfd submit`, and of our `Task` without it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import submitit
from safetensors.torch import load_file
from submitit.core.utils import UncompletedJobError

from dlfd_dist.run_dir import RunDir
from launch.execute.places import job_folder
from launch.execute.task import Task
from tests.slurm.cluster import Lab, ended, events, slurm, wait_for
from tests.slurm.test_campaign import SETTINGS

pytestmark = pytest.mark.timeout(900)


def test_the_jobs_of_dlfd_submit_are_jobs_of_submitit(dlfd, tmp_path: Path):
    """Of one that fails, tests/slurm/test_campaign.py."""
    out = tmp_path / "campaign"
    words = [*SETTINGS, "seed=0,1", "cluster.pack=1", "cluster.nodes=2", "cluster.tasks_per_node=1"]
    _, said = dlfd("submit", "train", *words, f"run.dir={out}", "--json")
    array = json.loads(said)["job_ids"][0]
    jobs = [submitit.SlurmJob(job_folder(out), f"{array}_{task}", [0, 1]) for task in (0, 1)]
    for seed, job in enumerate(jobs):
        assert job.submission().function.index == seed
        first, second = job.results()
        assert first["world_size"] == 2
        assert f"seed={seed}" in first["run_dir"]
        assert first == {
            **RunDir(Path(first["run_dir"])).read_result(),
            "run_dir": first["run_dir"],
        }
        assert second == {"rank": 1}
        wait_for(lambda job=job: ended(job, "COMPLETED"))
        # Each rank has a log of its own.
        logs = [job.task(rank).stdout() for rank in (0, 1)]
        assert "result: " in str(logs[0])
        assert "global_rank=1(2)" in str(logs[1])
    alone = submitit.SlurmJob(job_folder(out), f"{array}_0")
    assert alone.result() == jobs[0].results()[0]


def test_a_wrong_setting_ends_a_task_with_2_and_one_sentence(lab: Lab, tmp_path: Path):
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(timeout_min=5, slurm_mem="500M")
    job = executor.submit(Task("train", ("data=synthetic", "train.lr=-1", f"run.dir={tmp_path}/r")))
    with pytest.raises(UncompletedJobError, match="exit status 2"):
        job.result()
    wait_for(lambda: ended(job, "FAILED"))
    assert slurm("sacct", "-n", "-X", "-P", "-j", job.job_id, "-o", "ExitCode") == "2:0"
    (sentence,) = [line for line in str(job.stderr()).splitlines() if line.startswith("dlfd: ")]
    assert "train.lr=-1.0 is not allowed" in sentence


def test_a_task_needs_no_command_of_ours_and_is_the_same_run_here_and_on_two_nodes(
    lab: Lab, words: Callable[..., list[str]], tmp_path: Path
):
    """A script as a user of submitit writes it, once for each cluster."""
    runs = {}
    for cluster in ("slurm", "local"):
        verb, *settings = words(tmp_path / cluster, "runtime.dtype=float32")
        (tmp_path / "settings.json").write_text(json.dumps([verb, settings]))
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        done = subprocess.run(
            [sys.executable, str(script), cluster], capture_output=True, text=True, cwd=tmp_path,
            env=os.environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        runs[cluster] = json.loads(done.stdout.splitlines()[-1])
    assert {run["world_size"] for run in runs.values()} == {2}
    there, here = (load_file(RunDir(Path(run["run_dir"])).model) for run in runs.values())
    assert all((there[name] == here[name]).all() for name in here)
    logs = [log.read_text() for log in (tmp_path / "jobs").glob("*_log.out")]
    nodes = {node for log in logs for node in re.findall(r"hostname=(n\d)", log)}
    assert len(nodes) == 2


SCRIPT = """
import json, sys
from pathlib import Path
import submitit
from launch.execute.task import Task

verb, settings = json.loads(Path("settings.json").read_text())
executor = submitit.AutoExecutor(folder="jobs", cluster=sys.argv[1])
if sys.argv[1] == "slurm":
    executor.update_parameters(nodes=2, tasks_per_node=1, slurm_mem="500M", timeout_min=10)
else:
    executor.update_parameters(tasks_per_node=2, timeout_min=10)
first, second = executor.submit(Task(verb, tuple(settings))).results()
assert second == {"rank": 1}, second
print(json.dumps(first))
"""


def test_a_task_of_a_users_own_executor_saves_and_goes_on_as_submitit_has_it(
    lab: Lab, words: Callable[..., list[str]], local: RunDir, tmp_path: Path
):
    run = tmp_path / "run"
    verb, *settings = words(run)
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(timeout_min=30, slurm_mem="500M", slurm_wckey=None)
    job = executor.submit(Task(verb, tuple(settings)))
    wait_for(lambda: len(events(run, "step")) >= 2)
    slurm("scancel", "--signal=USR2", job.job_id)
    wait_for(lambda: RunDir(run).finished())
    assert job.result()["restarts"] == 1
    assert "Requeued job" in str(job.stdout())
    steps = [event["step"] for event in events(run, "step")]
    assert steps == list(range(1, len(steps) + 1))
    there, here = load_file(RunDir(run).model), load_file(local.model)
    assert all((there[name] == here[name]).all() for name in here)
