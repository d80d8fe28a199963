"""Record `make demo` and draw the recording: python -m docs.generate.recording

Written: docs/pictures/demo.cast (asciicast 2, what the terminal showed and when) and demo.svg. The
run takes some minutes. `python -m docs.generate.pictures` draws the picture from the stored cast.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
CAST = ROOT / "docs/pictures/demo.cast"
COMMAND = ("make", "-o", ".venv/.installed", "demo")
"""`make demo` where `make setup` is done: make takes .venv as it is."""
SHOWN = "make demo"
COLUMNS, ROWS = 160, 60
PLAYED_S = 5.0
"""Seconds of the picture. What moves for longer needs a button to stop it (WCAG 2.2.2)."""
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")
CHAR, LINE, MARGIN = 7.25, 17, 14
STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
.paper { fill: #f6f8fa } .ink { fill: #1f2937 } .soft { fill: #4b5563 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #1b1e26 } .ink { fill: #e5e7eb } .soft { fill: #b6bcc6 }
}
.past { visibility: hidden }
@keyframes wait { from { visibility: hidden } to { visibility: hidden } }
@keyframes show { from { visibility: visible } to { visibility: visible } }
@media (prefers-reduced-motion: reduce) { text { animation: none !important } }
@media print { text { animation: none !important } }
"""
"""Without animation the picture is the last screen: lines that stay are shown, others hidden."""


@dataclass(frozen=True)
class Shown:
    """A line of the terminal, and from when to when it stood there, in seconds of the run."""

    row: int
    text: str
    start: float
    end: float | None = None


@dataclass
class Terminal:
    """The lines that a terminal shows, for the control sequences that our output has."""

    columns: int = COLUMNS
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0

    def write(self, text: str) -> None:
        """Show a piece of output; ValueError for a control sequence that is not known."""
        done = 0
        for match in CONTROL.finditer(text):
            if match.start() != done:
                break
            done = match.end()
            numbers, letter, move, plain = match.groups()
            if plain:
                self._print(plain)
            elif move == "\r":
                self.column = 0
            elif move == "\n":
                self._down()
            elif letter == "A":
                self.row = max(self.row - int(numbers or 1), 0)
            elif letter == "K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif letter != "m":
                raise ValueError(f"the terminal does not know {match[0]!r}")
        if done != len(text):
            raise ValueError(f"the terminal does not know {text[done : done + 8]!r}")

    def _print(self, text: str) -> None:
        """Write over what the line has from the cursor on; go on below where the line is full."""
        while text:
            if self.column == self.columns:
                self._down()
            fits = text[: self.columns - self.column]
            line = self.lines[self.row].ljust(self.column)
            after = line[self.column + len(fits) :]
            self.lines[self.row] = line[: self.column] + fits + after
            self.column += len(fits)
            text = text[len(fits) :]

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.lines):
            self.lines.append("")


def record(command: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Run a command in a terminal of its own; yield seconds since its start, and what it wrote.

    RuntimeError if the command fails.
    """
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS)}
    start = time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=child, stderr=child, env=environment
    ) as process:
        os.close(child)
        decoder = codecs.getincrementaldecoder("utf-8")()
        while content := _read(main):
            yield time.monotonic() - start, decoder.decode(content).replace(str(ROOT), ".")
    os.close(main)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit status {process.returncode}")


def _read(terminal: int) -> bytes:
    """Return some output, or nothing when the last process has closed the terminal."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def write_cast(path: Path, events: Iterator[tuple[float, str]]) -> None:
    """Write a recording as asciicast 2: a header, and a line for each piece of output."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": SHOWN}
    lines = [header, *([round(second, 2), "o", text] for second, text in events)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def history(cast: Path) -> tuple[list[Shown], float]:
    """Return every line that a recording shows with its times, and the seconds of the whole."""
    header, *events = [json.loads(line) for line in cast.read_text("utf-8").splitlines()]
    terminal, second = Terminal(header["width"]), 0.0
    shown = [Shown(0, f"$ {header['title']}", 0)]
    standing: dict[int, Shown] = {}
    for second, _, text in events:
        terminal.write(text)
        for row, line in enumerate(terminal.lines):
            before = standing.get(row)
            if before is None or before.text != line.rstrip():
                if before is not None and before.start < second:
                    shown.append(replace(before, end=second))
                standing[row] = Shown(row + 1, line.rstrip(), second)
    shown += standing.values()
    return [line for line in shown if line.text], second


def drawing(cast: Path) -> str:
    """Return the SVG of a recording, played once within PLAYED_S seconds."""
    lines, total_s = history(cast)
    speed = max(total_s / PLAYED_S, 1)
    last = [line.text for line in sorted(lines, key=lambda line: line.row) if line.end is None]
    width = max(len(line.text) for line in lines) * CHAR + 2 * MARGIN
    height = (max(line.row for line in lines) + 3) * LINE + 2 * MARGIN
    note = f"Recorded from a run of {total_s / 60:.1f} minutes, {speed:.0f} times as fast."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" xml:space="preserve" '
            f'width="{width:.0f}" '
            f'height="{height}" viewBox="0 0 {width:.0f} {height}">',
            f"<title>{escape(f'Terminal recording of {SHOWN}')}</title>",
            f"<desc>{escape(chr(10).join(last))}</desc>",
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width:.0f}" height="{height}" rx="6"/>',
            *(_line(line, speed) for line in lines),
            f'<text class="soft" x="{MARGIN}" y="{height - MARGIN}">{note}</text>',
            "</svg>",
            "",
        ]
    )


def _line(line: Shown, speed: float) -> str:
    """Draw a line: hidden until it came, and, unless it stayed, after it went."""
    start = line.start / speed
    if line.end is None:
        kind, times = "ink", f"wait {start:.2f}s" if start else ""
    else:
        kind, times = "ink past", f"show {(line.end - line.start) / speed:.2f}s {start:.2f}s"
    style = f' style="animation: {times}"' if times else ""
    place = f'x="{MARGIN}" y="{MARGIN + LINE * (line.row + 1)}"'
    return f'<text class="{kind}" {place}{style}>{escape(line.text)}</text>'


if __name__ == "__main__":
    write_cast(CAST, record(COMMAND))
    CAST.with_suffix(".svg").write_text(drawing(CAST), encoding="utf-8")
