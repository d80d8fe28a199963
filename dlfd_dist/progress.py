"""How far a job is: a bar with the time left on a terminal, elsewhere lines that say it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from .plain import steer
from .terminal import coloured, is_live

logger = logging.getLogger("dlfd_dist")
# tqdm's own lock is one between processes, for which each process would start a further one.
tqdm.set_lock(threading.RLock())

EVERY_S = 15.0
"""Seconds between two lines of `followed`."""
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Return 5s, 4m12s or 2h05m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


_is_silent = False


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Draw no bar inside the block."""
    global _is_silent
    before, _is_silent = _is_silent, True
    try:
        yield
    finally:
        _is_silent = before


def say(line: str, style: str = "") -> None:
    """Print a line on standard error, above the bar where there is one."""
    with tqdm.external_write_mode(file=sys.stderr):
        steer(coloured(line, style, sys.stderr) + "\n", sys.stderr)


class Bar:
    """What is done of a total, and the time left; drawn on a terminal alone.

    Parameters
    ----------
    first : how much was done before this start
    shown : whether this process shows its progress
    stays : whether the bar stays on the terminal when it is full
    """

    def __init__(
        self, title: str, total: int, *, unit: str, first: int = 0, shown: bool = True,
        stays: bool = True,
    ):  # fmt: skip
        self.total, self.first, self.num_done = total, first, first
        self.start = time.monotonic()
        self.drawn = tqdm(
            total=total, initial=first, desc=title, unit=unit, leave=stays
        ) if shown and not _is_silent and is_live(sys.stderr) else None  # fmt: skip

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def eta(self) -> str:
        """The time left at the pace of this start; `?` before anything is done."""
        done = self.num_done - self.first
        return duration(self.elapsed / done * (self.total - self.num_done)) if done else "?"

    def skip(self, number: int) -> None:
        """Count what was done before this start."""
        self.first += number
        self.move_to(self.num_done + number)

    def move_to(self, num_done: int, **values: Any) -> None:
        """Say how much is done, and show values beside the bar."""
        if self.drawn is not None:
            if values:
                self.drawn.set_postfix(values, refresh=False)
            self.drawn.update(num_done - self.num_done)
        self.num_done = num_done

    def close(self) -> None:
        if self.drawn is not None:
            self.drawn.close()


def followed(items: Iterable[Item], title: str, total: int, *, unit: str) -> Iterator[Item]:
    """Yield the items; show a bar, or without a terminal a line now and then."""
    bar = Bar(title, total, unit=unit, stays=False)
    said = bar.start
    try:
        for item in items:
            yield item
            bar.move_to(bar.num_done + 1)
            if bar.drawn is None and time.monotonic() - said >= EVERY_S:
                said = time.monotonic()
                logger.info("%s %d/%d eta=%s", title, bar.num_done, total, bar.eta)
    finally:
        bar.close()


class Progress:
    """The steps of a run: a bar on a terminal; elsewhere one greppable line per interval.

    Parameters
    ----------
    total, first : steps of the run, and how many were done before this start
    enabled : rank 0 shows progress, the others do not
    """

    def __init__(self, title: str, total: int, *, first: int, every_s: float, enabled: bool):
        self.title, self.every_s, self.enabled = title, every_s, enabled
        self.bar = Bar(title, total, unit="step", first=first, shown=enabled)
        self.last = self.bar.start
        self.num_images = 0

    def update(self, step: int, num_images: int, **values: Any) -> None:
        """Tell that `step` steps are done."""
        self.num_images += num_images
        shown = {name: _short(value) for name, value in values.items()}
        self.bar.move_to(step, **shown)
        if self.enabled and self.bar.drawn is None and self._due(step):
            self._line(step, shown)

    def _due(self, step: int) -> bool:
        now = time.monotonic()
        due = now - self.last >= self.every_s or step == self.bar.total
        if due:
            self.last = now
        return due

    def _line(self, step: int, values: dict[str, str]) -> None:
        pace = self.num_images / max(self.bar.elapsed, 1e-9)
        texts = "".join(f" {name}={text}" for name, text in values.items())
        logger.info(
            "%s step=%d/%d%s img/s=%.0f eta=%s",
            self.title, step, self.bar.total, texts, pace, self.bar.eta,
        )  # fmt: skip

    def close(self) -> None:
        self.bar.close()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
