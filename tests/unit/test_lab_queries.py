"""A query of the lab is asked again where the controller did not answer; a command is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import ask, slurm


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An squeue that fails twice without a word; the file of its calls is returned."""
    calls = tmp_path / "calls"
    program = tmp_path / "squeue"
    program.write_text(
        f"#!/bin/sh\necho call >> {calls}\n[ $(wc -l < {calls}) -gt 2 ] && echo 7_1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return calls


def test_a_query_is_asked_again(squeue: Path):
    assert ask("squeue", "-h", wait_s=0) == "7_1"
    assert squeue.read_text().count("call") == 3


def test_a_query_that_is_never_answered_fails(squeue: Path):
    with pytest.raises(AssertionError, match="squeue -h"):
        ask("squeue", "-h", tries=2, wait_s=0)
    assert squeue.read_text().count("call") == 2


def test_a_command_is_not_repeated(squeue: Path):
    with pytest.raises(AssertionError, match="squeue"):
        slurm("squeue")
    assert squeue.read_text().count("call") == 1
