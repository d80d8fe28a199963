"""Nothing of the working directory runs in place of our code; no stranger's process is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch import children
from launch.campaign import local
from launch.children import child_environment, mind_working_directory, python_words
from launch.local import run_module

HOSTILE = "open(__file__ + '.ran', 'w').close()\n"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory whose files bear the names of ours, of Python's and of others."""
    for name in ("launch/__init__.py", "dlfd_dist/__init__.py", "random.py", "torch.py", "yaml.py"):
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HOSTILE)
    monkeypatch.chdir(tmp_path / "work")
    # main() sets these of the process that it runs in.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), "", "."]))
    monkeypatch.delenv(children.SAFE_PATH, raising=False)
    return tmp_path / "work"


def ran(trap: Path) -> list[str]:
    return [path.name for path in trap.rglob("*.ran")]


def test_a_child_runs_our_module_whatever_lies_in_the_working_directory(trap: Path):
    words = [*python_words("launch.campaign.task"), "nowhere", "job"]
    done = subprocess.run(words, env=child_environment(), capture_output=True, text=True)
    assert "nowhere/jobs/job.json" in done.stderr
    assert not ran(trap)


def test_the_process_of_a_local_campaign_runs_our_code(trap: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "campaign" / "jobs").mkdir(parents=True)
    job_id = local.start(tmp_path / "campaign", [])
    process = local.Process.read(job_id)
    assert process is not None
    os.waitpid(process.pid, 0)
    [result] = (tmp_path / "campaign" / "jobs" / "submitit").glob("*_result.pkl")
    assert result.stat().st_size
    assert not ran(trap)


def test_local_ranks_run_our_code_and_meet_where_no_other_machine_reaches(
    trap: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert run_module("tests.fakes.meeting", 2) == 0
    assert not ran(trap)


def test_what_is_not_used_of_the_working_directory_is_said(trap: Path, capsys):
    (trap / "mine.py").write_text("")
    mind_working_directory()
    said = capsys.readouterr().err
    assert "dlfd_dist, launch, random.py, torch.py, yaml.py of the working directory" in said
    assert "mine" not in said


def test_our_own_checkout_is_no_intruder(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(children.root())
    mind_working_directory()
    assert not capsys.readouterr().err


def test_a_python_that_cannot_leave_it_out_refuses(trap: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(children, "HAS_SAFE_PATH", False)
    with pytest.raises(children.ConfigError, match=r"random\.py.*start dlfd in another directory"):
        mind_working_directory()
    assert "-P" not in python_words("launch.rank")


# --- whose process it is


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_campaign_that_runs_is_ended(stranger: subprocess.Popen[bytes]):
    job_id = local.Process.of(stranger.pid).job_id
    assert local.is_alive(job_id)
    local.cancel(job_id)
    assert stranger.wait(10) == -signal.SIGTERM
    assert not local.is_alive(job_id)


@pytest.mark.parametrize(
    "change",
    [
        lambda job, pid: job.replace(f":{pid}.", f":{os.getpid()}."),
        lambda job, pid: job.replace(f":{pid}.", f":{pid}.1"),
        lambda job, _: job.replace("@", "@other-"),
        lambda job, _: job[: job.index("@") - 1] + "x" + job[job.index("@") :],
        lambda job, pid: job.replace(f":{pid}.", ":-1."),
        lambda job, pid: f"local:{pid}@{job.partition('@')[2]}",
    ],
    ids=["another pid", "another start", "another host", "another boot", "everybody", "pid alone"],
)
def test_a_number_that_another_process_has_is_left_alone(change, stranger: subprocess.Popen[bytes]):
    job_id = change(local.Process.of(stranger.pid).job_id, stranger.pid)
    assert not local.is_alive(job_id)
    local.cancel(job_id)
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.2)


def test_a_process_that_was_not_waited_for_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    job_id = local.Process.of(process.pid).job_id
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not local.is_alive(job_id)
    process.communicate()
