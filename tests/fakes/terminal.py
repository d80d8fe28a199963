"""A pseudo terminal in the place of a standard stream."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Callable, Iterator

import pytest


def _pieces(ours: int) -> Iterator[str]:
    """Yield what was written to a terminal, which hands it out in pieces."""
    while select.select([ours], [], [], 0.2)[0]:
        yield os.read(ours, 100_000).decode()


@contextlib.contextmanager
def terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, *, columns: int = 120, kind: str = "xterm"
) -> Iterator[Callable[[], str]]:
    """Put a terminal in the place of a stream; yield what returns the text written to it."""
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", str(columns))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(f"sys.{name}", stream)

        def written() -> str:
            stream.flush()
            return "".join(_pieces(ours))

        yield written
    os.close(ours)
