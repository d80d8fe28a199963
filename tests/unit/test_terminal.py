"""What verbs print: coloured tables on a terminal, plain text in a pipe and where it is asked."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from dlfd_dist.plain import visible_output
from dlfd_dist.progress import Bar, followed, say
from dlfd_dist.terminal import coloured, print_facts, print_table
from launch.cli import dispatch
from tests.fakes.campaigns import make_campaigns
from tests.fakes.terminal import terminal

ROWS = [("finished", "seed 0"), ("failed", "seed 1 \x1b[2J")]
PLAIN = "finished seed 0\nfailed seed 1"


@pytest.fixture(autouse=True)
def coloured_unless_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(monkeypatch: pytest.MonkeyPatch, **how) -> str:
    with terminal(monkeypatch, "stdout", **how) as written, visible_output():
        print_table(ROWS, heads=("state", "run"), plain=PLAIN, title="two runs", below=["why"])
        return written()


def test_a_terminal_gets_a_coloured_table_in_which_a_name_steers_nothing(monkeypatch):
    text = shown(monkeypatch)
    assert "\x1b[32mfinished" in text
    assert "\x1b[1;31mfailed" in text
    assert "\x1b[2J" not in text
    assert r"\x1b[2J" in text
    assert text.startswith("two runs")
    assert text.rstrip().endswith("why")


def test_a_table_keeps_to_the_width_of_the_terminal(monkeypatch):
    with terminal(monkeypatch, "stdout", columns=40) as written:
        print_table([("dlfd", "word " * 40)], plain="")
        lines = re.sub(r"\x1b\[\d*m", "", written()).splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) == 40


def test_no_colour_leaves_the_table_without_escapes(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(monkeypatch)
    assert "\x1b" not in text
    assert text.splitlines()[1].split() == ["state", "run"]


def test_a_dumb_terminal_gets_plain_text(monkeypatch):
    assert shown(monkeypatch, kind="dumb").splitlines() == PLAIN.splitlines()


def test_a_pipe_gets_plain_text(capsys):
    print_table(ROWS, heads=("state", "run"), plain=PLAIN, title="two runs", below=["why"])
    print_facts([("file", "a.pth")], 8)
    assert capsys.readouterr().out == f"{PLAIN}\nfile     a.pth\n"


def test_facts_on_a_terminal_are_never_folded(monkeypatch):
    with terminal(monkeypatch, "stdout", columns=30) as written, visible_output():
        print_facts([("file", "a" * 60)], 8)
        assert written() == f"\x1b[1mfile    \x1b[0m {'a' * 60}\r\n"


def test_json_on_a_terminal_has_no_escapes(monkeypatch):
    with terminal(monkeypatch, "stdout") as written, visible_output():
        assert dispatch(["methods", "--json"]) == 0
        text = written()
    assert "\x1b" not in text
    assert any(row["name"] == "dlfd" for row in json.loads(text))


@pytest.mark.parametrize("verb", ["methods", "models", "data"])
def test_a_listing_on_a_terminal_has_every_name_and_a_pipe_a_line_for_each(
    monkeypatch, capsys, verb
):
    assert dispatch([verb]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    with terminal(monkeypatch, "stdout", columns=200) as written, visible_output():
        assert dispatch([verb]) == 0
        text = written()
    assert all(f"\x1b[1m{name}" in text for name in names)


def test_status_on_a_terminal_is_a_table_with_the_reasons_below(tmp_path, monkeypatch, capfd):
    campaigns = make_campaigns(tmp_path, monkeypatch, capfd)
    campaigns.submit("train", "seed=0,1")
    campaigns.start("seed=0")
    campaigns.end("seed=0", 2, "dlfd: There is no image.\n")
    campaigns.slurm.set("101_0", "FAILED", end="2020-01-01T00:00:00", code="2:0")
    with terminal(monkeypatch, "stdout", columns=200) as written, visible_output():
        assert dispatch(["status", str(campaigns.path)]) == 1
        text = written()
    assert "\x1b[1;31mfailed" in text
    assert "\x1b[33mqueued" in text
    assert text.index("seed=1") < text.index("There is no image.") < text.index("its log:")


def test_a_bar_has_the_time_left_and_a_line_stands_above_it(monkeypatch):
    with terminal(monkeypatch, "stderr") as written, visible_output():
        bar = Bar("runs", 4, unit="run")
        bar.skip(1)
        bar.move_to(2)
        say("first", "yellow")
        bar.close()
        text = written()
    assert "2/4" in text
    assert "\x1b[33mfirst\x1b[0m\r\n" in text
    assert bar.eta == "0s"


def test_only_what_this_start_did_tells_the_time_left(monkeypatch):
    bar = Bar("runs", 10, unit="run", first=4, shown=False)
    assert bar.eta == "?"
    bar.start -= 60
    bar.skip(2)
    assert bar.eta == "?"
    bar.move_to(8)
    assert bar.eta == "1m00s"


def test_without_a_terminal_long_work_says_how_far_it_is(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("dlfd_dist.progress.EVERY_S", 0.0)
    # Other tests of a process leave handlers at the logger, so that its records are not counted.
    monkeypatch.setattr(
        "dlfd_dist.progress.logger.info", lambda text, *words: said.append(text % words)
    )
    assert list(followed("ab", "decode", 2, unit="image")) == ["a", "b"]
    assert said == ["decode 1/2 eta=0s", "decode 2/2 eta=0s"]


def test_rich_is_loaded_for_a_terminal_alone(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    print_table(ROWS, plain=PLAIN)
    assert coloured("word", "bold", io.StringIO()) == "word"
    assert "rich" not in sys.modules
    shown(monkeypatch)
    assert "rich.table" in sys.modules
