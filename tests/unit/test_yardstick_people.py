"""benchmarks/yardstick_people.py: worlds of a row, and which rows there are."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(benchmarks.__path__[0])))
    return importlib.import_module("yardstick_people")


def test_accuracy_and_the_flag_have_rows_of_few_and_of_many_people(people):
    assert {8, 100, 200} <= {own for own, _ in people.ACCURACY_PEOPLE}
    assert {50, 200} <= {own for own, _ in people.HARD_PEOPLE}
    assert 0.2 in people.CORRELATIONS
    assert round(2000 / people.ACCURACY_PART) >= 600


def test_a_row_that_takes_too_long_says_of_how_many_worlds_it_is(people, monkeypatch):
    shape = people.Shape((16, 16), people.IMAGES, 0.2)
    assert people.accuracy_coverage(shape, 2)[1] == 2
    monkeypatch.setattr(people, "ROW_SECONDS", 0.0)
    assert people.accuracy_coverage(shape, 50)[1] == 1
