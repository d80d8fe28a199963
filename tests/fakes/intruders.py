"""A working directory whose files bear the names of ours, and leave a trace where they are run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch import children

HOSTILE = "open(__file__ + '.ran', 'w').close()\n"


def set_trap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a new working directory with files named as ours, Python's and others; return it."""
    for name in ("launch/__init__.py", "dlfd_dist/__init__.py", "random.py", "torch.py", "yaml.py"):
        path = folder / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HOSTILE)
    monkeypatch.chdir(folder / "work")
    # main() sets these of the process that it runs in.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), "", "."]))
    monkeypatch.delenv(children.SAFE_PATH, raising=False)
    return folder / "work"


def ran(trap: Path) -> list[str]:
    """Return the files of the working directory that were run."""
    return [path.name for path in trap.rglob("*.ran")]
