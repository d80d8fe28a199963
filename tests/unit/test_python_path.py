"""A batch job finds our code first, and nothing in the directory that it starts in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlfd_dist.resources import resource_dir

LIBRARY = resource_dir("slurm") / "lib" / "python_path.sh"


def python_path(given: str | None, *code: str, cwd: Path, then: str = 'echo "$PYTHONPATH"') -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    words = ["bash", "-uec", f'. "$1"; shift; python_path "$@"; {then}', "job", str(LIBRARY), *code]
    env |= {} if given is None else {"PYTHONPATH": given}
    return subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (None, "/code"), ("", "/code"), (":", "/code"), (":/lib", "/code:/lib"),
        ("/lib:", "/code:/lib"), ("/a::/b", "/code:/a:/b"), (".:/a", "/code:/a"),
        ("here:/a b:*", "/code:/a b"),
    ],
)  # fmt: skip
def test_entries_that_mean_the_working_directory_are_left_out(given, left, tmp_path: Path):
    assert python_path(given, "/code", cwd=tmp_path) == left
    assert python_path(given, cwd=tmp_path) == left.removeprefix("/code").removeprefix(":")


def test_a_module_where_the_job_starts_does_not_run(tmp_path: Path):
    """Many a shell has PYTHONPATH=:/lib, out of PYTHONPATH=$PYTHONPATH:/lib."""
    (tmp_path / "random.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    then = f"PYTHONSAFEPATH=1 {sys.executable} -P -c 'import random; print(random.__file__)'"
    found = python_path(":/lib", "/code", cwd=tmp_path, then=then)
    assert found
    assert not found.startswith(str(tmp_path))
    assert not (tmp_path / "ran").exists()
