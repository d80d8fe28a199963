"""The folder of Ray's sockets: short, ours, or one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dlfd_dist.errors import ConfigError
from launch.search import sockets
from launch.search.sockets import BELOW, MAX_BYTES, ray_folder

LONG = "/tmp/" + 95 * "x"


def test_a_long_tmpdir_gives_way_to_a_short_folder_of_ours():
    folder = Path(ray_folder({"TMPDIR": LONG})["RAY_TMPDIR"])
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    assert len(str(folder)) <= MAX_BYTES


def test_a_folder_that_ray_can_use_stays():
    assert ray_folder({}) == ray_folder({"TMPDIR": "/tmp"}) == ray_folder({"RAY_TMPDIR": "/tmp"})
    assert ray_folder({}) == {}


def test_a_tmpdir_that_is_not_there_gives_way():
    assert "RAY_TMPDIR" in ray_folder({"TMPDIR": "/nowhere/tmp"})


@pytest.mark.parametrize(
    ("folder", "why"), [(LONG, "has 100 characters"), ("/nowhere/tmp", "cannot be written")]
)
def test_a_ray_tmpdir_that_was_asked_for_is_refused_in_one_sentence(folder, why):
    with pytest.raises(ConfigError, match=f"RAY_TMPDIR={folder} {why}: set RAY_TMPDIR to a folder"):
        ray_folder({"RAY_TMPDIR": folder, "TMPDIR": "/tmp"})


def test_a_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    open_to_all = tmp_path / "folder"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert not sockets._own(open_to_all)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not sockets._own(tmp_path / "link")
    monkeypatch.setattr(sockets, "_own", lambda _: False)
    with pytest.raises(ConfigError, match="has 100 characters, and /tmp/dlfd-ray-.* RAY_TMPDIR"):
        ray_folder({"TMPDIR": LONG})


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
