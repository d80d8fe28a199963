"""Tables and words for whoever reads them: coloured by rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, Any

from .plain import steer, visible

GOOD, BAD, BUSY, WAITING = "green", "bold red", "cyan", "yellow"
STYLES = {
    "ok": GOOD, "finished": GOOD, "FAIL": BAD, "FAILED": BAD, "failed": BAD, "lost": BAD,
    "blocked": BAD,
    "running": BUSY, "restarting": BUSY, "queued": WAITING, "waiting": WAITING, "held": WAITING,
    "cancelled": WAITING, "stopped": WAITING,
}  # fmt: skip
"""By word that fills a cell, its colour."""


def is_live(stream: Any) -> bool:
    """Return whether a stream is a terminal on which lines can be drawn again."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def no_colour() -> bool:
    """Return whether `NO_COLOR` forbids colours and weights (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def print_table(
    rows: Sequence[Sequence[str]], *, plain: str, heads: Sequence[str] = (), title: str = "",
    below: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print rows on standard output: as a table of rich on a terminal, as `plain` elsewhere.

    Parameters
    ----------
    plain : the whole text, with title and what stands below, without a newline at the end
    heads : the names of the columns; without them the first column names its row
    title, below : lines above and below the table
    """
    if not is_live(sys.stdout):
        print(plain)
        return
    steer(table_text(rows, heads, sys.stdout, title=title), sys.stdout)
    for line in below:
        print(line)


def table_text(
    rows: Sequence[Sequence[str]], heads: Sequence[str], stream: Any, *, title: str = ""
) -> str:
    """Return a table as a terminal shows it, in its width; colourless where `NO_COLOR` is set."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal: IO[str] = getattr(stream, "stream", stream)
    console = Console(file=terminal, color_system=None if no_colour() else "auto")
    table = Table.grid(padding=(0, 2, 0, 0)) if not heads else Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold"
    )  # fmt: skip
    for index in range(max(len(heads), *map(len, rows), 1)):
        head = heads[index] if heads else ""
        table.add_column(head, style="" if heads or index else "bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell), STYLES.get(cell, "")) for cell in row))
    with console.capture() as shown:
        if title:
            console.print(Text(visible(title)))
        console.print(table)
    return shown.get()


def print_facts(facts: Sequence[tuple[str, str]], width: int) -> None:
    """Print names, in a column of `width` characters, and values, which no terminal folds."""
    for name, value in facts:
        steer(coloured(f"{name:{width}}", "bold", sys.stdout), sys.stdout)
        print(f" {value}")


def coloured(text: str, style: str, stream: Any) -> str:
    """Return text with the escapes of a style of rich where the stream shows them.

    Control characters in the text itself are shown as escapes.
    """
    if not style or no_colour() or not is_live(stream):
        return visible(text)
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(style).render(visible(text), color_system=ColorSystem.STANDARD)
