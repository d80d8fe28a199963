"""The folder of Ray: short, entered by us alone, or one sentence."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.errors import ConfigError
from launch.search import sockets
from launch.search.cluster import _patiently
from launch.search.sockets import BELOW, MAX_BYTES, NAME, ray_folder

LONG = "/tmp/" + 95 * "x"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose path is short, as seen from its parent."""
    monkeypatch.chdir(tmp_path)
    folder = Path("t")
    folder.mkdir(mode=0o777)
    folder.chmod(0o1777)
    return folder


def is_ours_alone(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and (
        stat.S_IMODE(status.st_mode) == 0o700
    )  # fmt: skip


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_has_a_folder_of_ours_alone_in_a_folder_of_all(name: str, short: Path):
    folder = Path(ray_folder({name: str(short)})["RAY_TMPDIR"])
    assert folder == short / NAME
    assert is_ours_alone(folder)


@pytest.mark.parametrize("env", [{}, {"TMPDIR": LONG}, {"TMPDIR": "/nowhere/tmp"}])
def test_without_a_folder_that_can_be_used_it_lies_in_tmp(env: dict[str, str]):
    folder = Path(ray_folder(env)["RAY_TMPDIR"])
    assert folder == Path("/tmp") / NAME
    assert is_ours_alone(folder)
    assert len(str(folder)) <= MAX_BYTES


def test_a_private_folder_stays_so_that_asking_twice_gives_the_same(short: Path):
    first = ray_folder({"TMPDIR": str(short)})
    assert ray_folder({"TMPDIR": "/tmp", **first}) == first


@pytest.mark.parametrize(
    ("folder", "why"), [(LONG, "has 100 characters"), ("/nowhere/tmp", "cannot be written")]
)
def test_a_ray_tmpdir_that_was_asked_for_is_refused_in_one_sentence(folder, why):
    with pytest.raises(ConfigError, match=f"RAY_TMPDIR={folder} {why}: set RAY_TMPDIR to a folder"):
        ray_folder({"RAY_TMPDIR": folder, "TMPDIR": "/tmp"})


def test_what_others_could_only_read_is_closed(short: Path):
    (short / NAME).mkdir(mode=0o755)
    (short / NAME).chmod(0o755)
    assert is_ours_alone(Path(ray_folder({"TMPDIR": str(short)})["RAY_TMPDIR"]))


def test_a_folder_that_somebody_else_had_first_is_not_used(short: Path, monkeypatch):
    taken = short / NAME
    taken.symlink_to(short.resolve())
    with pytest.raises(ConfigError, match=rf"{NAME} is not yours alone.*RAY_TMPDIR"):
        ray_folder({"TMPDIR": str(short)})
    taken.unlink()
    taken.mkdir()
    taken.chmod(0o777)
    with pytest.raises(ConfigError, match="is not yours alone"):
        ray_folder({"TMPDIR": str(short)})
    taken.chmod(0o700)
    monkeypatch.setattr(sockets.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="is not yours alone"):
        ray_folder({"TMPDIR": str(short)})


def test_ray_opens_what_it_makes_to_all_below_a_folder_that_they_cannot_enter(short: Path):
    """What we guard against: a Ray that no longer does this would need no folder of ours."""
    from ray._common.utils import try_to_create_directory

    folder = Path(ray_folder({"TMPDIR": str(short)})["RAY_TMPDIR"])
    try_to_create_directory(str(folder / "ray" / "session" / "sockets"))
    assert (folder / "ray" / "session" / "sockets").stat().st_mode & 0o777 == 0o777
    assert is_ours_alone(folder)


def test_the_longest_socket_of_ray_fits(tmp_path, monkeypatch):
    """The limit is the kernel's: one byte more and no socket can be bound."""
    monkeypatch.chdir(tmp_path)
    for name, fits in (((MAX_BYTES + len(BELOW)) * "s", True), (108 * "s", False)):
        with socket.socket(socket.AF_UNIX) as server:
            if fits:
                server.bind(name)
            else:
                with pytest.raises(OSError, match="AF_UNIX path too long"):
                    server.bind(name)


def test_a_node_says_it_in_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "launch.search.node", "true"],
        env={**os.environ, "RAY_TMPDIR": LONG, "SLURM_NODEID": "0", "SLURM_NNODES": "1",
             "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "RAY_TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr


# --- a machine that is too busy


@pytest.mark.parametrize(("slow", "starts"), [(0, 1), (2, 3)])
def test_a_ray_that_is_too_slow_is_started_again(slow: int, starts: int):
    asked: list[dict[str, Any]] = []

    def start(**options: Any) -> None:
        asked.append(options)
        if len(asked) <= slow:
            raise Exception("The current node timed out during startup. This could happen ...")

    _patiently(start, num_cpus=2)
    assert asked == [{"num_cpus": 2}] * starts


def test_a_ray_that_stays_too_slow_is_one_sentence_and_anything_else_is_raised():
    def slow() -> None:
        raise Exception("The current node timed out during startup.")

    def broken() -> None:
        raise RuntimeError("no such interface")

    with pytest.raises(ConfigError, match="not ready after 30 s, 3 times"):
        _patiently(slow)
    with pytest.raises(RuntimeError, match="no such interface"):
        _patiently(broken)
