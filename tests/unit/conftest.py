"""Fixtures of the unit tests: a comparison of three methods, written once, for the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlfd_dist.report import load_comparison, summarise
from tests.fakes.reports import ALL_METHODS
from tests.fakes.run_dirs import write_comparison


@pytest.fixture(scope="session")
def comparison(tmp_path_factory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("a b's") / "compare", methods=ALL_METHODS)


@pytest.fixture(scope="session")
def records(comparison):
    return load_comparison(comparison)


@pytest.fixture(scope="session")
def rows(records):
    return summarise(records)


@pytest.fixture(scope="session")
def crossed(tmp_path_factory):
    """Return the records of two train seeds, each unlearned with three seeds."""
    path = tmp_path_factory.mktemp("crossed") / "compare"
    return load_comparison(write_comparison(path, train_seeds=(0, 1), seeds=(5, 6, 7)))
