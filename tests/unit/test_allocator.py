"""Memory that a rank freed is kept: the next step touches pages that it has already."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dlfd_dist.runtime.allocator import CHOSEN, keep_freed_memory

# Pages that the system maps for the second of two equal steps, of 24 MB in blocks of 8.
STEPS = """\
import resource, sys
import numpy as np
from dlfd_dist.runtime.allocator import keep_freed_memory
{}
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(8 << 20, np.uint8) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(code: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    command = [sys.executable, "-c", STEPS.format(code)]
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def test_a_second_step_touches_the_pages_of_the_first():
    assert pages("assert keep_freed_memory()") < 100 < 1000 < pages("")


@pytest.mark.parametrize("name", CHOSEN)
def test_what_a_user_chose_stays(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
