"""Memory that a rank freed is kept: the next step touches pages that it has already."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from dlfd_dist.runtime.allocator import CHOSEN, keep_freed_memory

SAID = (*CHOSEN, "MALLOC_")

# What is still resident, in MB, of 64 MB in blocks of 8 that were written and freed.
STEPS = """\
import resource
from pathlib import Path
import numpy as np
from dlfd_dist.runtime.allocator import keep_freed_memory
page = resource.getpagesize() / 2**20
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * page
{}
before = resident()
for _ in range(2):
    blocks = [np.ones(8 << 20, np.uint8) for _ in range(8)]
    del blocks
print(resident() - before)
"""


def resident_after(code: str) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SAID)}
    command = [sys.executable, "-c", STEPS.format(code)]
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_a_step_freed_is_there_for_the_next():
    assert resident_after("assert keep_freed_memory()") > 60 > 40 > resident_after("")


@pytest.mark.parametrize("name", [*CHOSEN, "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"])
def test_what_a_user_chose_stays(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith(SAID)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
