"""Locks between threads, processes and nodes, with and without locks of the file system."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlfd_dist import locks
from dlfd_dist.errors import RunDirError
from dlfd_dist.locks import Held, locked
from dlfd_dist.run_dir import RunDir, exclusively
from launch.execute import journal as ledger
from launch.search.pinning import pinned

HOLD = """
import sys, time
from pathlib import Path
if {without}:
    import errno, fcntl
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")
    fcntl.lockf = fcntl.flock = refuse
from dlfd_dist.locks import Held, locked
try:
    with locked(Path({path!r}), wait_s={wait_s}):
        print("holds", flush=True)
        {inside}
except Held as err:
    print("held by", err, flush=True)
"""
ADD = """
        number = Path({path!r} + ".number")
        value = int(number.read_text())
        time.sleep(0.02)
        number.write_text(str(value + 1))
"""


def no_locks(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)


def start(path: Path, inside: str, *, without: bool, wait_s: float = 0.0) -> subprocess.Popen[str]:
    code = HOLD.format(path=str(path), without=without, wait_s=wait_s, inside=inside)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
    )


@pytest.fixture(params=[False, True], ids=["locks", "no locks"])
def without(request, monkeypatch) -> bool:
    if request.param:
        no_locks(monkeypatch)
    return request.param


def test_of_two_processes_one_works_and_the_other_says_who_does(tmp_path, without):
    path = tmp_path / "a.lock"
    holder = start(path, "time.sleep(60)", without=without)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    with pytest.raises(Held, match=f"process {holder.pid} on {socket.gethostname()}"), locked(path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(path):  # its holder died
        pass
    assert list(tmp_path.iterdir()) == []


SLOW_TO_SIGN = """
import time
from pathlib import Path
from dlfd_dist import locks
sign = locks._sign
def slowly(file, path):
    print("locked", flush=True)
    time.sleep(0.5)
    sign(file, path)
locks._sign = slowly
with locks.locked(Path({path!r})):
    time.sleep(60)
"""


def test_a_holder_that_has_not_written_its_name_yet_is_waited_for(tmp_path):
    path = tmp_path / "a.lock"
    code = SLOW_TO_SIGN.format(path=str(path))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(Held, match=f"process {holder.pid} on {socket.gethostname()}"), locked(path):
        pass
    holder.kill()
    holder.wait()


def test_what_many_processes_count_under_a_lock_is_not_lost(tmp_path, without):
    path = tmp_path / "a.lock"
    number = Path(f"{path}.number")
    number.write_text("0")
    inside = ADD.format(path=str(path)).strip()
    adders = [start(path, inside, without=without, wait_s=60) for _ in range(4)]
    assert [adder.communicate()[0] for adder in adders] == ["holds\n"] * 4
    assert number.read_text() == "4"


def test_threads_of_one_process_exclude_each_other(tmp_path, without):
    path, inside = tmp_path / "a.lock", []

    def hold() -> None:
        with locked(path, wait_s=10, poll_s=0.01):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    with locked(path, wait_s=10, poll_s=0.01):
        assert not inside
    for thread in threads:
        thread.join()
    with locked(path), pytest.raises(Held, match="this process"), locked(path):
        pass


def of_another_node(path: Path, age_s: float) -> Path:
    held = path.with_name(path.name + ".held")
    held.write_text(json.dumps({"host": "node7", "process": 1}))
    then = time.time() - age_s
    os.utime(held, (then, then))
    return held


def test_without_locks_a_living_holder_on_another_node_is_left_alone(tmp_path, monkeypatch):
    no_locks(monkeypatch)
    held = of_another_node(tmp_path / "a.lock", age_s=locks.DEAD_S / 2)
    with pytest.raises(Held, match="process 1 on node7"), locked(tmp_path / "a.lock"):
        pass
    assert list(tmp_path.iterdir()) == [held]


def test_without_locks_a_holder_that_gives_no_sign_of_life_is_taken_over(tmp_path, monkeypatch):
    no_locks(monkeypatch)
    held = of_another_node(tmp_path / "a.lock", age_s=locks.DEAD_S + 5)
    with locked(tmp_path / "a.lock"):
        assert json.loads(held.read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    no_locks(monkeypatch)
    monkeypatch.setattr(locks, "TOUCH_S", 0.02)
    with locked(tmp_path / "a.lock"):
        held = tmp_path / "a.lock.held"
        os.utime(held, (1, 1))
        time.sleep(0.3)
        assert time.time() - held.stat().st_mtime < 10


def test_every_place_that_locks_goes_on_without_locks_and_warns(tmp_path, monkeypatch, caplog):
    no_locks(monkeypatch)
    (tmp_path / "attempts").mkdir()
    monkeypatch.setattr(locks, "_warned", set())
    monkeypatch.setattr(logging.getLogger("dlfd_dist"), "propagate", True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with exclusively(tmp_path / "compare.lock", "dlfd compare"):
        with ledger.Ledger(tmp_path).locked() as book:
            book.append("planned", reused={})
        with ledger.attempt(tmp_path, "a", {}) as status:
            status.append(0)
        with RunDir(tmp_path / "run").running(), pinned(1) as cores:
            assert len(cores) == 1
        with (
            pytest.raises(RunDirError, match="by another 'dlfd compare' .this process"),
            exclusively(tmp_path / "compare.lock", "dlfd compare"),
        ):
            pass
    told = [r.message for r in caplog.records if "has no locks (Function not" in r.message]
    assert len(set(told)) == 3  # one for each folder
    assert not list(tmp_path.rglob("*.held"))


def test_another_error_of_the_system_is_not_taken_for_a_file_system_without_locks(tmp_path):
    with pytest.raises(OSError, match="No such file"), locked(tmp_path / "nowhere" / "a.lock"):
        pass
