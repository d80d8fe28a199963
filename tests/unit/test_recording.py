"""The recording of `make demo`: what the terminal showed, in a picture that needs nothing else."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import pytest

from docs.generate.recording import CAST, PLAYED_S, Terminal, drawing, history, record, write_cast

TEXT = re.compile(r'<text class="(ink|ink past)"[^>]*>([^<]*)</text>')
EVENTS = [
    (0.5, "begin <&> ü\r\n"),
    (1.0, "\rruns:  0%"),
    (40.0, "\rruns: 50%"),
    (60.0, "\r          \r1/1 done\r\n\x1b[1mend\x1b[0m\r\n"),
]


@pytest.fixture
def cast(tmp_path: Path) -> Path:
    write_cast(tmp_path / "small.cast", iter(EVENTS))
    return tmp_path / "small.cast"


def texts(svg: str, kind: str) -> list[str]:
    return [unescape(text) for found, text in TEXT.findall(svg) if found == kind]


def test_without_motion_the_picture_is_the_last_screen(cast: Path):
    svg = drawing(cast)
    assert texts(svg, "ink") == ["$ make demo", "begin <&> ü", "1/1 done", "end"]
    assert texts(svg, "ink past") == ["runs:  0%", "runs: 50%"]
    assert ".past { visibility: hidden }" in svg
    assert re.search(r"prefers-reduced-motion: reduce\) \{ text \{ animation: none !important", svg)


def test_lines_come_in_their_order_within_the_time_of_the_picture(cast: Path):
    svg = drawing(cast)
    waits = [float(second) for second in re.findall(r"animation: wait ([\d.]+)s", svg)]
    assert waits == sorted(waits)
    assert waits[-1] == PLAYED_S
    shows = re.findall(r"animation: show ([\d.]+)s ([\d.]+)s", svg)
    assert shows == [("3.25", "0.08"), ("1.67", "3.33")]
    lines, total_s = history(cast)
    assert total_s == 60
    assert [line.row for line in lines if line.text.startswith("runs")] == [2, 2]


@pytest.mark.parametrize("small", [True, False])
def test_picture_is_whole_and_fetches_nothing(small: bool, cast: Path):
    svg = drawing(cast if small else CAST)
    ElementTree.fromstring(svg)  # noqa: S314 - written by ourselves
    assert re.findall(r"https?://[^\"\s]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|<image|<script|href", svg)
    assert "prefers-color-scheme: dark" in svg


def test_stored_recording_has_the_table_of_its_run_and_no_path_of_a_machine():
    written = "".join(json.loads(line)[2] for line in CAST.read_text("utf-8").splitlines()[1:])
    rows = [line for line in written.splitlines() if re.match(r"\S+ +\d +\d\.\d{3} ± ", line)]
    assert [re.match(r"[\w-]+", row)[0] for row in rows] == [  # type: ignore[index]
        "Original", "Retrained", "Fine-tune", "DLFD",
    ]  # fmt: skip
    shown = texts(drawing(CAST), "ink")
    assert set(rows) <= set(shown)
    assert shown[0] == "$ make demo"
    assert shown[-1] == "report: runs/demo/report.html"
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|opt)\b", written)


def test_a_long_line_goes_on_below():
    terminal = Terminal(4)
    terminal.write("abcdefghi\r\nj")
    assert terminal.lines == ["abcd", "efgh", "i", "j"]


def test_an_unknown_control_sequence_is_refused():
    with pytest.raises(ValueError, match="does not know"):
        Terminal().write("a\x1b[2J")
    with pytest.raises(ValueError, match="does not know"):
        Terminal().write("a\x1b]0;title\x07")


def test_a_command_is_recorded_as_a_terminal_shows_it():
    code = "import sys; print(sys.stdout.isatty(), 'ü'); print('warned', file=sys.stderr)"
    written = "".join(text for _, text in record([sys.executable, "-c", code]))
    assert written == "True ü\r\nwarned\r\n"


def test_a_command_that_fails_is_no_recording():
    with pytest.raises(RuntimeError, match="exit status 3"):
        list(record([sys.executable, "-c", "raise SystemExit(3)"]))


def test_what_waits_is_shown_at_the_end():
    """An animation that fills forwards would keep hidden what it hides."""
    drawn = CAST.with_suffix(".svg").read_text(encoding="utf-8")
    waits = re.findall(r'animation: (wait [^";]*)', drawn)
    assert waits
    assert not [one for one in waits if "both" in one or "forwards" in one]
