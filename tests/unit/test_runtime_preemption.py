"""The stop flag and the signals that set it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dlfd_dist.runtime.preemption import STOP_SIGNALS, stop_flag


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_signal_sets_the_flag_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    with stop_flag() as flag:
        assert not flag.requested
        os.kill(os.getpid(), number)
        assert flag.requested
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    with pytest.raises(RuntimeError, match="inside"), stop_flag():
        raise RuntimeError("inside")
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_a_thread_that_may_not_set_handlers_gets_a_flag_all_the_same():
    found = []

    def body() -> None:
        with stop_flag() as flag:
            found.append(flag.requested)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [False]
