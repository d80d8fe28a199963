"""Progress lines, the console and the log of a rank."""

from __future__ import annotations

import logging
import re

import pytest

from dlfd_dist.logs import close_rank_log, open_rank_log, setup_console
from dlfd_dist.progress import Progress, duration
from dlfd_dist.run_dir import read_events


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (252, "4m12s"), (3599, "59m59s"), (3600, "1h00m"),
     (7500, "2h05m"), (90000, "25h00m")],
)  # fmt: skip
def test_duration_is_short_and_readable(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def own_logging(monkeypatch):
    """A logger without the handlers of other tests, put back afterwards."""
    root, python = logging.getLogger("dlfd_dist"), logging.getLogger("py.warnings")
    held = (root.handlers, root.level, root.propagate, python.handlers)
    root.handlers = []
    root.setLevel(logging.INFO)
    yield root
    logging.captureWarnings(False)
    root.handlers, root.propagate, python.handlers = held[0], held[2], held[3]
    root.setLevel(held[1])


PROGRESS = re.compile(r"unlearn step=2/4 loss=0\.4123 kept=3 img/s=\d+ eta=\d+s\n$")


def test_progress_without_a_terminal_is_one_greppable_line(own_logging, capsys):
    setup_console()
    progress = Progress("unlearn", 4, first=0, every_s=1e-9, enabled=True)
    progress.update(2, 64, loss=0.41234, kept=3)
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"\[0s\] ", err)
    assert PROGRESS.search(err)


def test_progress_waits_for_its_interval_and_always_tells_the_last_step(own_logging, capsys):
    setup_console()
    progress = Progress("train", 3, first=0, every_s=1e6, enabled=True)
    for step in (1, 2, 3):
        progress.update(step, 8)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "step=3/3" in lines[0]
    assert "eta=0s" in lines[0]


def test_other_ranks_show_no_progress(own_logging, capsys):
    setup_console()
    Progress("train", 1, first=0, every_s=1e-9, enabled=False).update(1, 8)
    assert capsys.readouterr().err == ""


def test_console_of_another_rank_shows_its_warnings_with_its_number(own_logging, capsys):
    setup_console(rank=3)
    setup_console(rank=3)
    logging.getLogger("dlfd_dist.x").info("quiet")
    logging.getLogger("dlfd_dist.x").warning("loud")
    assert re.fullmatch(r"\[0s\] \[rank 3\] warning: loud\n", capsys.readouterr().err)


def test_rank_log_has_one_json_object_a_line(own_logging, tmp_path):
    path = tmp_path / "rank_0002.jsonl"
    handler = open_rank_log(path, 2)
    logging.getLogger("dlfd_dist.x").info("größe %d\nnext", 3)
    close_rank_log(handler)
    logging.getLogger("dlfd_dist.x").info("after")
    (event,) = read_events(path)
    assert (event["rank"], event["level"], event["message"]) == (2, "info", "größe 3\nnext")
    assert event["time"] > 0
