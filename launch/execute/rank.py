"""A local rank that does not outlive its launcher: python -m launch.execute.rank CONFIG.yaml ...

Its arguments are those of python -m dlfd_dist. Without this, a launcher that is killed leaves ranks
that go on writing, and the same command started again writes into the same directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

LAUNCHER = "DLFD_LAUNCHER_PID"
PR_SET_PDEATHSIG = 1


def end_with(launcher: int) -> None:
    """Ask the kernel to kill this process when its parent ends (Linux); end now if it has."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)


if __name__ == "__main__":
    end_with(int(os.environ[LAUNCHER]))
    from dlfd_dist.__main__ import main

    sys.exit(main())
