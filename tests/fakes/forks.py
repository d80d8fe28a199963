"""`python -m MODULE` as a fork of this process, which has the imports done: 0.1 s instead of 6.

It is for a process that has run no backward pass and has no threads of OpenMP: autograd refuses to
work in a fork of one that has. The process is a child as Popen's own is, with its streams, its
environment and its end; signals, open files and the main module are those of a new program.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Any, NoReturn

OURS = ("dlfd_dist", "launch.", "tests.")
"""How the modules begin that are forked; any other program is started."""


class Forked(subprocess.Popen):
    """A Popen that forks where the program is a module of ours."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        words = [str(args)] if isinstance(args, str | bytes) else [str(word) for word in args]
        if not (words[0] == sys.executable and "-m" in words and _module(words).startswith(OURS)):
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        environ, pipes, new_session = more[5], more[9:15], more[20]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(words, environ or os.environ, (pipes[0], pipes[3], pipes[5]), new_session)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def fork_instead_of_starting() -> None:
    """Let the workers of a comparison and the ranks of a run be forks of this process."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess.Popen = subprocess_handler.Popen = Forked  # type: ignore[misc, assignment]


def _module(words: Sequence[str]) -> str:
    return words[words.index("-m") + 1]


def _become(
    words: Sequence[str], environ: Mapping[str, str], streams: Sequence[int], new_session: bool
) -> NoReturn:
    """Run the module as the main one of this process, and end the process."""
    status: int | str | None = 1
    try:
        if new_session:
            os.setsid()
        _new_program(dict(environ), streams)
        place = words.index("-m") + 1
        sys.argv = [*words[place:]]
        # What this process has loaded of it is not the main module.
        sys.modules.pop(words[place], None)
        runpy.run_module(words[place], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as err:
        status = err.code if isinstance(err.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def _new_program(environ: dict[str, str], streams: Sequence[int]) -> None:
    """Leave what a new program would not have: handlers of signals, and open files but three."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, file in enumerate(streams):
        if file >= 0:
            os.dup2(file, stream)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # The helpers of multiprocessing were reached through files that are closed now.
    resource_tracker._resource_tracker.__init__()  # type: ignore[misc]
    forkserver._forkserver.__init__()  # type: ignore[attr-defined, misc]
    os.environ.clear()
    os.environ.update(environ)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115
