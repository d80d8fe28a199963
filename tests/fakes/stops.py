"""A stop that comes after a number of steps, without a signal."""

from __future__ import annotations

from dlfd_dist.runtime.preemption import StopFlag


class StopAfter(StopFlag):
    """Requested when it is read for the n-th time: the loops read it once a step."""

    def __init__(self, steps: int):
        self.left = steps

    @property
    def requested(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left <= 0
