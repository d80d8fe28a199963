"""make release uses the wheel on each Python of the machine; one that fails or lacks is told."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pythons = runpy.run_path(str(Path(__file__).parents[2] / ".ci" / "pythons.py"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of programs, the only one on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "dlfd_dist.whl").touch()
    return folder


def test_a_python_is_here_if_it_runs(path: Path):
    program(path, "python3.12", f'exec {sys.executable} "$@"')
    program(path, "python3.13", "echo 'command not found' >&2; exit 127")  # a shim of pyenv
    assert [pythons["is_here"](f"python3.{n}") for n in (11, 12, 13)] == [False, True, False]


def test_pythons_that_are_not_here_are_named(path: Path, dist: Path, capsys):
    assert pythons["main"](dist, []) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"Python 3.{n}" for n in range(10, 14)]
    assert all("does not run here" in line for line in lines[:-1])
    assert lines[-1] == "0 passed, 0 failed"


def test_a_python_that_was_asked_for_must_be_here(path: Path, dist: Path, capsys):
    assert pythons["main"](dist, ["3.12"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


def test_a_step_that_fails_is_told_with_what_it_printed(path: Path, dist: Path, capsys):
    program(path, "python3.12", '[ "$1" = --version ] || { echo no venv; exit 3; }')
    assert pythons["main"](dist, ["3.12"]) == 1
    printed = capsys.readouterr().out
    assert "-m venv" in printed
    assert "ended with 3:\nno venv" in printed


def test_a_folder_without_a_wheel_is_told(path: Path, tmp_path: Path, capsys):
    assert pythons["main"](tmp_path / "nowhere", []) == 2
    assert "holds 0 wheels, not one" in capsys.readouterr().out


def test_a_module_that_does_not_load_is_told(tmp_path: Path):
    for package in ("dlfd_dist", "launch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "launch" / "broken.py").write_text("import a_package_that_is_not_there\n")
    # Where PYTHONSAFEPATH is set, the current folder is not looked into.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    load = [sys.executable, "-c", pythons["LOAD"]]
    ended = subprocess.run(load, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "a_package_that_is_not_there" in ended.stderr
