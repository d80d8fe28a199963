"""benchmarks/planted_faults.yaml: every fault can be planted here, and has tests to see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.planted_faults import (
    REPOSITORY,
    Fault,
    Outcome,
    Place,
    page,
    planted,
    read_faults,
    read_outcomes,
)

FAULT = Fault("a sign", "code.py", "a - b", "a + b", ("tests/unit/test_*.py",))


@pytest.mark.parametrize("fault", read_faults(), ids=lambda fault: fault.name)
def test_every_fault_can_be_planted_here(fault: Fault):
    place = fault.place(REPOSITORY)
    assert place is not None, f"say where '{fault.name}' would be committed now ({fault.file})"
    assert place.old != place.new
    assert fault.part(REPOSITORY), f"no test file is named that should see '{fault.name}'"


def test_a_fault_is_planted_where_its_text_stands_once_and_taken_out_again(tmp_path: Path):
    code = tmp_path / "code.py"
    for text, found in (("x = a - b\n", True), ("a - b, a - b", False), ("a * b", False)):
        code.write_text(text)
        assert (FAULT.place(tmp_path) is not None) is found
    code.write_text("x = a - b\n")
    with planted(Place("code.py", "a - b", "a + b"), tmp_path):
        assert code.read_text() == "x = a + b\n"
    assert code.read_text() == "x = a - b\n"


def test_the_page_names_what_was_lost_and_gained(tmp_path: Path):
    file = tmp_path / "outcomes.jsonl"
    assert read_outcomes(file) == {}
    other = Fault("a border", "code.py", "<", "<=", ("tests/unit/test_*.py",))
    before, after = (
        {f.digest: Outcome(f.name, f.digest, w) for f, w in zip((FAULT, other), words, strict=True)}
        for words in (("found", "missed"), ("missed", "found"))
    )
    text = page([FAULT, other], after, before)
    assert "- found before and not after: a sign\n" in text
    assert "- found after and not before: a border\n" in text
    assert "| a sign | `code.py` | found | missed |" in text


def test_what_part_of_the_tests_missed_is_run_again_with_all():
    seen, missed = (Outcome("a", "1", word, under="tests/unit") for word in ("found", "missed"))
    assert seen.is_final("tests")
    assert missed.is_final("tests/unit")
    assert not missed.is_final("tests")
