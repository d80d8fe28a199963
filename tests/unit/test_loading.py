"""What a process loads before its work, and at what cost."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from dlfd_dist import __main__ as entry
from dlfd_dist.garbage import without_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_in_the_block_and_what_it_made_is_passed_over_later(enabled: bool):
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        before = [one["collections"] for one in gc.get_stats()]
        with without_collection():
            made = [[number] for number in range(100_000)]
            after = [one["collections"] for one in gc.get_stats()]
        assert after == before
        assert gc.isenabled() == enabled
        assert not any(one is made for one in gc.get_objects())
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_the_entry_of_a_rank_loads_the_library_without_collection():
    body = ast.parse(Path(entry.__file__).read_text()).body
    (block,) = [node for node in body if isinstance(node, ast.With)]
    assert ast.unparse(block.items[0]) == "without_collection()"
    assert any(isinstance(n, ast.ImportFrom) and n.module == "jobs" for n in block.body)
    ours = [n.module for n in body if isinstance(n, ast.ImportFrom) and n.level]
    assert ours == ["garbage"]


def test_the_report_of_a_campaign_loads_no_torch():
    code = "import sys, launch.results.campaign; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
