"""Nothing of the working directory runs in place of our code; no stranger's process is ended."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlfd_dist.errors import RunDirError
from launch import children
from launch.children import child_environment, findable, mind_working_directory, python_words
from launch.execute import background as local
from launch.execute.places import job_folder
from launch.execute.process import CONTROLLER, Process
from tests.fakes.intruders import ran, set_trap


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return set_trap(tmp_path, monkeypatch)


def test_a_child_runs_our_module_whatever_lies_in_the_working_directory(trap: Path):
    words = [*python_words("launch.verbs.task"), "nowhere", "job"]
    done = subprocess.run(words, env=child_environment(), capture_output=True, text=True)
    assert "nowhere/jobs/job.json" in done.stderr
    assert not ran(trap)


def test_the_process_of_a_local_campaign_runs_our_code(trap: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / "campaign" / "jobs").mkdir(parents=True)
    job_id = local.start(tmp_path / "campaign", [], "launch.verbs.task")
    process = Process.read(job_id)
    assert process is not None
    output = tmp_path / "campaign" / "jobs" / "local.out"
    assert [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (1, 2)] == [str(output)] * 2
    assert local.is_alive(tmp_path / "campaign", job_id)
    os.waitpid(process.pid, 0)
    [result] = (tmp_path / "campaign" / "jobs" / "submitit").glob("*_result.pkl")
    assert result.stat().st_size
    assert not ran(trap)


@pytest.mark.parametrize("is_package", [True, False])
def test_children_find_what_this_program_imports(is_package, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(children.root()))
    file = tmp_path / ("mynets/__init__.py" if is_package else "mynets.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with findable(["mynets:build", "numpy:array", "__main__:x", "nowhere:x"]):
        entries = child_environment()["PYTHONPATH"].split(os.pathsep)
    assert entries == [str(children.root()), str(tmp_path)]
    assert os.environ["PYTHONPATH"] == str(children.root())


def test_a_folder_whose_modules_would_run_for_ours_is_not_given_to_children(
    tmp_path: Path, monkeypatch, capsys
):
    for name in ("mynets", "random"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with findable(["mynets:build"]):
        assert str(tmp_path) not in child_environment().get("PYTHONPATH", "")
    assert "whose random.py would run in place" in capsys.readouterr().err


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
    assert "-P" not in python_words("launch.execute.rank")


# --- whose process it is


SLEEP = "import time; print(flush=True); time.sleep(60)"


def begin(*words: str, code: str = SLEEP) -> subprocess.Popen[bytes]:
    """Start a process that sleeps, with these words at the end of its command line."""
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    job_folder(tmp_path).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def controller(campaign: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start what looks as submitit's process for the campaign."""
    with begin("-m", CONTROLLER, str(job_folder(campaign))) as process:
        yield process
        process.kill()


def test_a_campaign_that_runs_is_ended(campaign: Path, controller: subprocess.Popen[bytes]):
    job_id = Process.of(controller.pid).job_id
    assert local.is_alive(campaign, job_id)
    local.cancel(campaign, job_id)
    assert controller.wait(10) == -signal.SIGTERM
    assert not local.is_alive(campaign, job_id)


def left_alone(campaign: Path, job_id: str, process: subprocess.Popen[bytes]) -> bool:
    assert not local.is_alive(campaign, job_id)
    local.cancel(campaign, job_id)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    return True


@pytest.mark.parametrize(
    "change",
    [
        lambda job, pid: job.replace(f":{pid}.", f":{os.getpid()}."),
        lambda job, pid: job.replace(f":{pid}.", f":{pid}.1"),
        lambda job, _: job.replace("@", "@other-"),
        lambda job, _: job[: job.index("@") - 1] + "x" + job[job.index("@") :],
        lambda job, pid: job.replace(f":{pid}.", ":-1."),
        lambda job, pid: f"local:{pid}@{job.partition('@')[2]}",
        lambda job, pid: job.replace(f":{pid}.", f":{'9' * 5000}."),
        lambda job, pid: job.replace(f":{pid}.", f":{pid}.{'9' * 5000}"),
    ],
    ids=["another pid", "another start", "another host", "another boot", "everybody", "pid alone",
         "a long pid", "a long start"],
)  # fmt: skip
def test_a_number_that_another_process_has_is_left_alone(
    change, campaign: Path, controller: subprocess.Popen[bytes]
):
    job_id = change(Process.of(controller.pid).job_id, controller.pid)
    assert left_alone(campaign, job_id, controller)


@pytest.mark.parametrize(
    "words",
    [(), ("-m", CONTROLLER, "{other}"), ("-m", "another.module", "{mine}"), ("{mine}",)],
    ids=["of no campaign", "of another campaign", "another module", "the folder alone"],
)
def test_a_record_edited_to_name_another_process_ends_nothing(
    words: tuple[str, ...], campaign: Path, tmp_path_factory: pytest.TempPathFactory
):
    """Whoever can write the ledger can write number, start and boot of any process into it."""
    folders = {"mine": job_folder(campaign), "other": tmp_path_factory.mktemp("other")}
    with begin(*(word.format(**folders) for word in words)) as process:
        assert left_alone(campaign, Process.of(process.pid).job_id, process)
        process.kill()


def test_a_process_whose_name_is_no_text_is_left_alone(campaign: Path):
    name = "import ctypes; ctypes.CDLL(None).prctl(15, b'caf\\xe9 )', 0, 0, 0);"
    with begin(code=name + SLEEP) as process:
        assert b"caf\xe9" in Path(f"/proc/{process.pid}/stat").read_bytes()
        assert left_alone(campaign, Process.of(process.pid).job_id, process)
        process.kill()


def test_a_number_given_again_between_look_and_signal_gets_none(
    campaign: Path, controller: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    """The process ends after it was looked at: the signal has nowhere to go, whoever comes next."""
    process = Process.of(controller.pid)

    def refuse(*_: object) -> None:
        raise AssertionError("a number was signalled, and not a process")

    def ends_meanwhile(*_: object) -> bool:
        controller.kill()
        controller.wait()
        monkeypatch.setattr(os, "kill", refuse)
        return True

    monkeypatch.setattr(Process, "runs", ends_meanwhile)
    process.terminate(job_folder(campaign))


def test_a_campaign_of_another_user_is_theirs_to_stop(
    campaign: Path, controller: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refused)
    with pytest.raises(RunDirError, match="belongs to another user, who alone can stop it"):
        local.cancel(campaign, Process.of(controller.pid).job_id)


def test_a_process_that_was_not_waited_for_is_not_alive(
    campaign: Path, controller: subprocess.Popen[bytes]
):
    job_id = Process.of(controller.pid).job_id
    controller.kill()
    os.waitid(os.P_PID, controller.pid, os.WEXITED | os.WNOWAIT)
    assert not local.is_alive(campaign, job_id)
