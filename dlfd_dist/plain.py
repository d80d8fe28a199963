"""Names of people, labels and files as mere text: on a terminal, in a table, beside other names."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Categories of characters that steer a terminal or the direction of text and show nothing."""
LAYOUT = "\n\t"
FORMULA = tuple("=+-@\t\r")
"""How a cell begins that a spreadsheet would compute; the apostrophe that marks text is put before
it, and before an apostrophe of the text itself."""


def visible(text: str) -> str:
    r"""Return text in which each control character is shown as its escape.

    >>> visible("a\x1b[2J")
    'a\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_hidden(c) else c for c in text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, in the plural where the number wants that.

    >>> counted(1, "run"), counted(2, "run"), counted(0, "person", "people")
    ('1 run', '2 runs', '0 people')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _is_hidden(char: str) -> bool:
    return char not in LAYOUT and unicodedata.category(char) in HIDDEN


class _Visible:
    """A text stream that shows control characters; what else a stream can do is the stream's."""

    def __init__(self, stream: IO[str]):
        self.stream = stream

    def write(self, text: str) -> int:
        # A progress bar begins with a return, and is no name.
        bar = "\r" if text.startswith("\r") else ""
        self.stream.write(bar + visible(text[len(bar) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def write_steering(self, text: str) -> None:
        """Write escapes of our own, which clear a screen or go up a line."""
        self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Show control characters in all that is printed inside the block."""
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, _Visible):
        yield
        return
    sys.stdout, sys.stderr = (_Visible(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def steer(text: str, stream: Any) -> None:
    """Write escapes of our own to a stream of `visible_output` or another one."""
    getattr(stream, "write_steering", stream.write)(text)


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names.

    >>> dotted({"train": {"lr": 0.1}, "seed": 0})
    {'train.lr': 0.1, 'seed': 0}
    """
    names: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        names |= dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return names


def cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file that no spreadsheet takes for a formula.

    >>> cell("=1+1"), cell("Ann"), cell(-1)
    ("'=1+1", 'Ann', -1)
    """
    return "'" + value if isinstance(value, str) and value.startswith((*FORMULA, "'")) else value


def from_cell(text: str) -> str:
    """Return the text that `cell` was given."""
    return text[1:] if text.startswith("'") else text


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV; every text in it is one."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def letters(text: str) -> str:
    """Return the letters and digits of a text, without case, accents and other ways to write them.

    >>> letters("ZÔe\u0308 Ａsh-1")
    'zoeash1'
    """
    spelled = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", spelled) if c.isalnum())


def band_ends(number: int) -> tuple[int, int]:
    """Return the least and the greatest count that `band` does not tell from a count."""
    if number < 1:
        return 0, 0
    high = max(2, 1 << (number - 1).bit_length())
    return (high // 2 + 1 if high > 2 else 1), high


def band(number: int) -> str:
    """Return the range of a count that a person's number of images could be told by.

    >>> band(0), band(1), band(4), band(5)
    ('0', '1 to 2', '3 to 4', '5 to 8')
    """
    low, high = band_ends(number)
    return f"{low} to {high}" if high else "0"


def bands(counts: Any) -> Any:
    """Return counts, in dicts of whatever depth, as bands; what is no whole number stays.

    >>> bands({"pairs": 3, "exact": {"retain-forget": 1}, "similarity": 0.98})
    {'pairs': '3 to 4', 'exact': {'retain-forget': '1 to 2'}, 'similarity': 0.98}
    """
    if isinstance(counts, dict):
        return {name: bands(count) for name, count in counts.items()}
    return band(counts) if type(counts) is int else counts
