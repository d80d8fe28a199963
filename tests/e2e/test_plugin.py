"""The example of a plugin, installed by pip, and its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
pytestmark = pytest.mark.xdist_group("wheel")


def test_the_example_is_installed_known_and_passes_its_tests(tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    done = subprocess.run(
        [*pip, "--target", str(tmp_path / "site"), str(EXAMPLE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        ended = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    listed = json.loads(run("-m", "launch.cli", "methods", "--json"))
    assert ("random_label", "dlfd-random-label") in [(r["name"], r["package"]) for r in listed]
    shown = run("-m", "launch.cli", "unlearn", "--help", "method=random_label")
    assert "method.forget_weight=1.0" in shown
    assert "3 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"))
