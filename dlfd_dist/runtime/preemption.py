"""A stop flag that signals set and all ranks agree on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..errors import STOPPED, DlfdError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""TERM from schedulers at preemption, USR2 from --signal; USR1 may be caught by NCCL."""


class StoppedEarly(DlfdError):
    """The run was asked to stop, saved its state and can be started again."""

    exit_status = STOPPED
    on_all_ranks = True


class StopFlag:
    """Set by the handler; read by the loop between steps."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, signum: int, _frame: object) -> None:
        self.requested = True
        _received.add(signum)


_early = StopFlag()
_received: set[int] = set()


def asked_by() -> frozenset[int]:
    """Return the signals that have asked this process to stop."""
    return frozenset(_received)


def note_early_stops() -> None:
    """Count a stop that is asked for before `stop_flag` listens as one that comes inside it.

    For a rank among several: were it to leave by itself, the others would wait for it in vain.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _early._handle)


@contextlib.contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Yield a flag that TERM and USR2 set instead of ending the process."""
    flag = StopFlag()
    flag.requested = _early.requested
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag._handle) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
