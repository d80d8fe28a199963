"""Several ranks on this machine: whose code they run, and where they meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.execute.ranks import run_module
from tests.fakes.intruders import ran, set_trap


def test_local_ranks_run_our_code_and_meet_where_no_other_machine_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trap = set_trap(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert run_module("tests.fakes.meeting", 2) == 0
    assert not ran(trap)
