"""The table of bad inputs: its rows, and that a violation shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bad_inputs
from benchmarks.bad_inputs import BadInput, make_lab, outcome, read_inputs


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("lab")
    return folder, make_lab(folder)


def test_there_are_300_inputs_and_none_twice():
    rows = list(read_inputs())
    assert len(rows) >= 300
    assert len({(row.words, row.content) for row in rows}) == len(rows)


ROWS = list(read_inputs())[::40]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group} {row.shown[:20]}")
def test_every_40th_is_refused_in_one_sentence(lab, row: BadInput):
    found = outcome(row, *lab)
    assert not found.violation, found


def test_a_traceback_a_file_and_a_command_that_works_are_violations(lab, monkeypatch):
    row = BadInput("", "--version", "")
    assert outcome(row, *lab).violation == "not refused"
    monkeypatch.setattr(bad_inputs, "dlfd", lambda _: (lab[0] / "left").write_text("") or 2)
    assert outcome(row, *lab).violation == "left behind: left"

    def fail(_: object) -> int:
        raise KeyError("a")

    monkeypatch.setattr(bad_inputs, "dlfd", fail)
    assert outcome(row, *lab).violation == "traceback"
