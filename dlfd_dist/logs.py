"""Console and per-rank JSONL logs."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from .progress import duration, say
from .terminal import WAITING


class _Jsonl(logging.Handler):
    """One JSON object a line: time, level, rank, message."""

    def __init__(self, path: Path, rank: int):
        super().__init__()
        self.file = path.open("a", encoding="utf-8")
        self.rank = rank

    def emit(self, record: logging.LogRecord) -> None:
        event = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "rank": self.rank,
            "message": record.getMessage(),
        }
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        super().close()


class _Console(logging.Handler):
    """Rank 0 in full; warnings of other ranks with their number. Progress bars stay whole."""

    def __init__(self, rank: int):
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self.start = time.monotonic()
        self.prefix = "" if rank == 0 else f"[rank {rank}] "

    def emit(self, record: logging.LogRecord) -> None:
        elapsed = duration(time.monotonic() - self.start)
        loud = record.levelno >= logging.WARNING
        level = f"{record.levelname.lower()}: " if loud else ""
        line = f"[{elapsed}] {self.prefix}{level}{record.getMessage()}"
        say(line, WAITING if loud else "")


def setup_console(rank: int = 0) -> None:
    """Send this process's messages to the console; once per process."""
    root = logging.getLogger("dlfd_dist")
    root.setLevel(logging.INFO)
    root.propagate = False
    if not any(isinstance(h, _Console) for h in root.handlers):
        root.addHandler(_Console(rank))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = root.handlers


@contextlib.contextmanager
def console(rank: int = 0) -> Iterator[None]:
    """Send messages to the console inside the block; a program's own logging is then as before."""
    root, handler = logging.getLogger("dlfd_dist"), _Console(rank)
    before = root.level, root.propagate
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        root.propagate = before[1]


def open_rank_log(path: Path, rank: int) -> logging.Handler:
    """Add this rank's JSONL file to the handlers; close_rank_log takes it out again."""
    handler = _Jsonl(path, rank)
    logging.getLogger("dlfd_dist").addHandler(handler)
    return handler


def close_rank_log(handler: logging.Handler) -> None:
    logging.getLogger("dlfd_dist").removeHandler(handler)
    handler.close()
