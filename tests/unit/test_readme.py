"""The README is short, and its figures are those of the result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import figures

ROOT = Path(__file__).parents[2]


def test_readme_is_short_and_begins_with_its_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    assert [line.split()[:2] for line in lines[:24] if line.startswith("make ")] == [
        ["make", "demo"],
        ["make", "test"],
    ]


def test_table_of_figures_is_that_of_the_result_files():
    page = figures.PAGE.read_text(encoding="utf-8")
    found = figures.TABLE.search(page)
    assert found is not None
    assert found[0] == figures.table(), "run python -m benchmarks.figures"
    assert max(map(len, page.splitlines())) <= figures.LONGEST_ROW


def test_readme_shows_the_measured_gates():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[1] for line in figures.table().splitlines()[2:4]]
    assert len(rows) == 2
    assert all(f"| {figure} |" in readme for figure in rows)


def test_a_figure_that_is_not_in_its_file_is_refused():
    entry = {"what": "memory", "result": "memory_cpu2", "find": "no such words", "show": "{0}"}
    with pytest.raises(ValueError, match="memory_cpu2_.* has no figure for 'memory'"):
        figures.row(entry)


def test_a_row_that_is_too_long_is_refused():
    entry = {"what": "m" * 100, "result": "memory_cpu2", "find": r"ratio (\S+)", "show": "{0}"}
    with pytest.raises(ValueError, match="characters"):
        figures.row(entry)
