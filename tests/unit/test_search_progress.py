"""launch/search/progress: the table on a terminal, the lines without one."""

from __future__ import annotations

import logging

import pytest

from launch.search.plan import make_plan
from launch.search.progress import Table
from tests.fakes.terminal import terminal

FIGURES = {
    "step": 2, "num_steps": 4, "objective": 0.7, "accuracy": 0.6, "forgetting_score": 0.1,
    "forgetting_score_se": 0.02, "seconds": 3.0,
}  # fmt: skip


def told(table: Table) -> None:
    table.started("a", 0, {"method.lr": 0.01})
    table.reported("a", FIGURES)
    table.started("b", 1, {"method.lr": 0.02})
    table.ended("a")
    table.close()


@pytest.fixture
def search():
    given = ["data=synthetic", "forget.fraction=0.25", "checkpoint=original", "search=random"]
    given += ["search.objective=nomus"]
    return make_plan(given).search


def test_a_terminal_shows_one_table_that_is_drawn_again(search, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal(monkeypatch, "stderr") as shown:
        told(Table(search, 2, "trial"))
        text = shown()
    assert "trials: 0/2 ended, eta ?" in text
    last = text.split("\x1b[J")[-1]
    assert "trials: 1/2 ended, eta 0s" in last
    assert "lr=0.01" in last
    assert "lr=0.02" in last
    assert "0.100+-0.020" in last
    # As many lines are taken back as were drawn.
    first = text.split("\x1b[")[0]
    assert f"\x1b[{first.count(chr(10))}F" in text


def test_without_a_terminal_there_is_a_line_for_each_trial_that_ends(
    search, monkeypatch: pytest.MonkeyPatch
):
    lines: list[str] = []
    monkeypatch.setattr(
        logging.getLogger("dlfd_dist.search"), "info", lambda text, *args: lines.append(text % args)
    )
    told(Table(search, 2, "trial"))
    (line,) = lines
    assert line.startswith("1/2 eta=")
    assert "trial 0: stopped at step 2, nomus 0.700" in line
