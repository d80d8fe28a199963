"""Where the time of a step goes: named phases, timed only while somebody measures."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch

OTHER = "other"
"""What belongs to no phase."""


class Lap(NamedTuple):
    """Seconds and calls of each phase between two looks at the watch."""

    seconds: dict[str, float]
    calls: dict[str, int]


def _new_lap() -> Lap:
    return Lap(defaultdict(float), defaultdict(int))


class Stopwatch:
    """Seconds of each phase, without those of the phases within it.

    On CUDA it waits for the device wherever a phase begins or ends, so that work counts where it
    was asked for; what a run overlaps is then not overlapped.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.open = [OTHER]
        self.whole = False
        """Within a phase that counts what is in it as its own."""
        self._lap = _new_lap()
        self._since = self._now()

    def lap(self) -> Lap:
        """Return what was measured since the last look."""
        self._charge()
        lap, self._lap = self._lap, _new_lap()
        return lap

    @contextlib.contextmanager
    def phase(self, name: str, *, whole: bool) -> Iterator[None]:
        self._charge()
        self.open.append(name)
        self._lap.calls[name] += 1
        self.whole = whole
        try:
            yield
        finally:
            self._charge()
            self.open.pop()
            self.whole = False

    def _charge(self) -> None:
        now = self._now()
        self._lap.seconds[self.open[-1]] += now - self._since
        self._since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


_watch: Stopwatch | None = None


@contextlib.contextmanager
def measured(device: torch.device) -> Iterator[Stopwatch]:
    """Yield a stopwatch that hears of every phase within the block."""
    global _watch
    _watch = Stopwatch(device)
    try:
        yield _watch
    finally:
        _watch = None


def phase(name: str, *, whole: bool = False) -> contextlib.AbstractContextManager[None]:
    """Return a block that counts as this phase where time is measured, and else costs nothing.

    whole : phases within it count as this one
    """
    if _watch is None or _watch.whole:
        return contextlib.nullcontext()
    return _watch.phase(name, whole=whole)
