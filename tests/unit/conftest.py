"""Fixtures of the unit tests: the table of a comparison, and runs of several trainings."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def rows(records):
    from dlfd_dist.report import summarise

    return summarise(records)


@pytest.fixture(scope="session")
def crossed(tmp_path_factory):
    """Return the records of two train seeds, each unlearned with three seeds."""
    from dlfd_dist.report import load_comparison
    from tests.fakes.run_dirs import write_comparison

    path = tmp_path_factory.mktemp("crossed") / "compare"
    return load_comparison(write_comparison(path, train_seeds=(0, 1), seeds=(5, 6, 7)))
