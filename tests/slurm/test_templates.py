"""The sbatch templates on a real SLURM: every interruption ends in the run that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.run_dir import RunDir
from tests.slurm.cluster import Job, Lab, events, slurm

Words = Callable[..., list[str]]
STEPS = 16


def assert_same(run: Path, local: RunDir, world_size: int) -> None:
    """Compare the model with that of one rank, and the steps that were recorded."""
    one, other = load_file(local.model), load_file(RunDir(run).model)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        # Sums over ranks are taken in another order: rounding of float64 over a few small steps.
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-9)
    assert [event["step"] for event in events(run, "step")] == list(range(1, STEPS + 1))
    assert RunDir(run).read_result()["world_size"] == world_size


def assert_restarts_told(run: Path, job: Job) -> None:
    """The result knows its job, and how often SLURM started it again."""
    result = RunDir(run).read_result()
    assert (result["job_id"], result["restarts"]) == (job.number, job.restarts)


def test_the_run_moves_the_weights(original: Path, local: RunDir):
    """Else the comparisons here would prove nothing."""
    before, after = load_file(RunDir(original).model), load_file(local.model)
    assert max((before[n].double() - after[n].double()).abs().max().item() for n in after) > 1e-4


def started(job: Job, run: Path) -> None:
    """Wait until the ranks have met; from then on they hear a signal."""
    log = RunDir(run).rank_log(0)
    job.wait_for(lambda: log.exists() and log.stat().st_size > 0)


def ranks_of(run: Path) -> list[psutil.Process]:
    """Return the ranks of a run; the lab's processes are this machine's."""
    words = {f"run.dir={run}", "dlfd_dist"}
    commands = {p: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    starters = {"srun", "launch.torchrun"}
    return [p for p, c in commands.items() if words <= set(c) and not starters & set(c)]


def was_signalled(stopped: psutil.Process) -> bool:
    """Whether USR2 waits for a process that stands still, or it goes on: SLURM may send CONT."""
    try:
        status = Path(f"/proc/{stopped.pid}/status").read_text()
    except OSError:
        return True
    pending = int(status.split("ShdPnd:")[1].split()[0], 16)
    return bool(pending >> (signal.SIGUSR2 - 1) & 1) or "\nState:\tT" not in status


def stop_at_a_step(job: Job, run: Path, ask: Callable[[], object]) -> None:
    """Ask a job to stop while one rank stands still, as if at a long step, and the others wait."""
    started(job, run)
    rank = ranks_of(run)[0]
    rank.suspend()
    ask()
    job.wait_for(lambda: was_signalled(rank))
    rank.resume()


def assert_stopped_once(job: Job) -> None:
    """The ranks heard of it, saved before any checkpoint was due, and the job came back."""
    assert job.wait() == "COMPLETED", job.said
    assert job.said.count("Stopped as asked after step") == 1
    assert f"of {STEPS}" in job.said.split("going on from step")[1].splitlines()[0]
    assert "Traceback" not in job.said


def test_ranks_of_srun_on_two_nodes_stopped_before_and_after_they_listen_come_back_and_finish_equal(
    lab: Lab, words: Words, local: RunDir, tmp_path: Path
):
    """USR2 ends ranks that still import torch, and lets those that train save and stop."""
    run = tmp_path / "run"
    shape = ("--nodes=2", "--ntasks-per-node=1")
    job = lab.template("srun", words(run, "run.checkpoint_every=1000"), *shape)
    job.wait_for(lambda: len(ranks_of(run)) == 2)
    slurm("scancel", "--signal=USR2", job.number)
    job.wait_for(lambda: job.restarts == 1)
    assert "Stopped as asked" not in job.said
    stop_at_a_step(job, run, lambda: slurm("scancel", "--signal=USR2", job.number))
    assert_stopped_once(job)
    assert job.restarts == 2
    assert_restarts_told(run, job)
    assert_same(run, local, 2)


def test_four_ranks_of_torchrun_give_way_to_a_higher_partition_and_finish_equal(
    lab: Lab, words: Words, local: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Preemption too sends USR2, and grants some time."""
    run = tmp_path / "run"
    monkeypatch.setenv("DLFD_RANKS_PER_NODE", "2")
    shape = ("--nodes=2", "--cpus-per-task=2", "--partition=low")
    job = lab.template("torchrun", words(run, "run.checkpoint_every=1000"), *shape)
    more = ("--partition=high", "--nodes=4", "--exclusive", "--wrap=true")
    stop_at_a_step(job, run, lambda: lab.submit(*more, output=tmp_path / "high.out"))
    assert_stopped_once(job)
    assert job.restarts == 1
    assert_restarts_told(run, job)
    assert_same(run, local, 4)


def test_a_run_that_fails_does_not_come_back(lab: Lab, words: Words, tmp_path: Path):
    run = tmp_path / "run"
    job = lab.template("srun", words(run, "checkpoint=/nowhere/model.pth"), "--ntasks=1")
    assert job.wait() == "FAILED"
    assert job.told("ExitCode") == "2:0"
    assert job.restarts == 0
    assert "/nowhere/model.pth" in job.said


# --- the ends that slurm/lib/requeue.sh knows, without ranks


ENDING = """#!/bin/bash
. "$DLFD_SLURM/lib/requeue.sh"
echo "task ${SLURM_ARRAY_TASK_ID:-0} start ${SLURM_RESTART_COUNT:-0}"
if [ "${SLURM_ARRAY_TASK_ID:-0}" = 2 ]; then sleep 12; exit 0; fi
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || [ -n "${DLFD_MAX_RESTARTS:-}" ]; then
  srun -n2 bash -c 'sleep "0.$SLURM_PROCID"; exit 75'
  requeue_or_exit $?
fi
"""


def test_one_task_of_an_array_comes_back_and_the_limit_of_restarts_ends_a_job(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The last task of an array bears the number of the array itself."""
    script = tmp_path / "ending.sh"
    script.write_text(ENDING)
    options = ("--ntasks=2", "--open-mode=append", "--requeue")
    array = lab.submit("--array=1-3", *options, str(script), output=tmp_path / "%a.out")
    monkeypatch.setenv("DLFD_MAX_RESTARTS", "1")
    job = lab.submit(*options, str(script), output=tmp_path / "job.out")
    tasks = [Job(f"{array.number}_{task}", tmp_path / f"{task}.out") for task in (1, 2, 3)]
    assert [task.wait() for task in tasks] == ["COMPLETED"] * 3
    starts = [task.said.count(" start ") for task in tasks]
    assert starts == [2, 1, 2]

    assert job.wait() == "FAILED"
    assert job.restarts == 1
    assert job.told("ExitCode") == "75:0"
    assert "not started again after 1 restarts (DLFD_MAX_RESTARTS)" in job.said
