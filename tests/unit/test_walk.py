"""The walk from `dlfd submit` to the text of a job: it is planned once, and then carried out."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import launch
from launch.cli import main

ROOT = Path(inspect.getfile(launch)).parent
RECORDS = {"plan/runs.py", "plan/shape.py"}
"""Run, Plan and LaunchSpec, which every room reads."""


@functools.cache
def room_of(file: str) -> str | None:
    """Return the folder of launch/ in which a file lies; None outside of it, and of a record."""
    path = Path(file)
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).as_posix() in RECORDS:
        return None
    return path.relative_to(ROOT).parts[0]


def rooms(arguments: list[str]) -> list[str]:
    """Return the folders of launch/ in which functions are called, one after the other."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # Modules and classes are no functions: what is imported has no order.
        if event != "call" or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if (room := room_of(code.co_filename)) is not None:
            called.append(room)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        assert main(arguments) == 0
    finally:
        sys.setprofile(before)
    return [room for room, _ in itertools.groupby(called)]


@pytest.mark.parametrize(
    "request_of",
    [["compare", "method=finetune,dlfd", "compare.tune=2"],
     ["audit", "ulira", "method=finetune", "audit.models=2"],
     ["unlearn", "method=dlfd,scrub", "seed=0,1"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_submission_is_planned_once_before_anything_is_carried_out(
    request_of: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    verb, *words = request_of
    kind = words[:1] if verb == "audit" else []
    given = ["data=synthetic", "data.image_size=16", "model=small", "forget.fraction=0.25"]
    out = f"run.dir={tmp_path}/out"
    arguments = ["submit", verb, *kind, *words[len(kind) :], *given, out, "--dry-run"]
    # What is loaded meanwhile would be watched too, at ten times its cost.
    assert main(arguments) == 0
    walk = rooms(arguments)
    assert "#SBATCH" in capsys.readouterr().out
    assert walk.count("plan") == 1
    assert walk.index("execute") > walk.index("plan")
    assert not {"results", "search"} & set(walk)
