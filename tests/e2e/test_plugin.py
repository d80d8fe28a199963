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
CUT = "-- cut --"
ASK = f"""
import sys, pytest
from launch.cli import main
assert main(["methods", "--json"]) == 0
print("{CUT}")
assert main(["metrics", "--json"]) == 0
print("{CUT}")
assert main(["unlearn", "--help", "method=random_label"]) == 0
print("{CUT}")
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1]]))
"""
pytestmark = pytest.mark.xdist_group("wheel")


def test_the_example_is_installed_known_and_passes_its_tests(tmp_path: Path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    done = subprocess.run(
        [*pip, "--target", str(tmp_path / "site"), str(EXAMPLE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    # One process for all of it: each would load torch anew.
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(EXAMPLE / "tests")],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    listed, metrics, shown, tested = done.stdout.split(CUT)
    rows = [(row["name"], row["package"]) for row in json.loads(listed)]
    assert ("random_label", "dlfd-random-label") in rows
    assert "method.forget_weight=1.0" in shown
    assert [row["package"] for row in json.loads(metrics)] == ["dlfd-random-label"]
    assert "6 passed" in tested
