"""Console and per-rank JSONL logs, and the progress line."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


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
        level = "" if record.levelno < logging.WARNING else record.levelname.lower() + ": "
        line = f"[{elapsed}] {self.prefix}{level}{record.getMessage()}"
        tqdm.write(line, file=sys.stderr)


def setup_console(rank: int = 0) -> None:
    """Send this process's messages to the console; once per process."""
    root = logging.getLogger("dlfd_dist")
    root.setLevel(logging.INFO)
    root.propagate = False
    if not any(isinstance(h, _Console) for h in root.handlers):
        root.addHandler(_Console(rank))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = root.handlers


def open_rank_log(path: Path, rank: int) -> logging.Handler:
    """Add this rank's JSONL file to the handlers; close_rank_log takes it out again."""
    handler = _Jsonl(path, rank)
    logging.getLogger("dlfd_dist").addHandler(handler)
    return handler


def close_rank_log(handler: logging.Handler) -> None:
    logging.getLogger("dlfd_dist").removeHandler(handler)
    handler.close()


def duration(seconds: float) -> str:
    """Return 5s, 4m12s or 2h05m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """A bar with ETA on a terminal; elsewhere one greppable line per interval.

    Parameters
    ----------
    total, first : steps of the run, and how many were done before this start
    enabled : rank 0 shows progress, the others do not
    """

    def __init__(self, title: str, total: int, *, first: int, every_s: float, enabled: bool):
        self.title, self.total, self.first, self.every_s = title, total, first, every_s
        self.enabled = enabled
        self.start = self.last = time.monotonic()
        self.num_images = 0
        on_terminal = enabled and sys.stderr.isatty()
        self.bar = (
            tqdm(total=total, initial=first, desc=title, unit="step") if on_terminal else None
        )

    def update(self, step: int, num_images: int, **values: Any) -> None:
        """Tell that `step` steps are done."""
        self.num_images += num_images
        if self.bar is not None:
            self.bar.set_postfix({k: _short(v) for k, v in values.items()}, refresh=False)
            self.bar.update(step - self.bar.n)
        elif self.enabled and self._due(step):
            self._line(step, values)

    def _due(self, step: int) -> bool:
        now = time.monotonic()
        due = now - self.last >= self.every_s or step == self.total
        if due:
            self.last = now
        return due

    def _line(self, step: int, values: dict[str, Any]) -> None:
        elapsed = time.monotonic() - self.start
        done = max(step - self.first, 1)
        parts = [f"step={step}/{self.total}", *(f"{k}={_short(v)}" for k, v in values.items())]
        parts += [
            f"img/s={self.num_images / max(elapsed, 1e-9):.0f}",
            f"eta={duration(elapsed / done * (self.total - step))}",
        ]
        logging.getLogger("dlfd_dist").info("%s %s", self.title, " ".join(parts))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
