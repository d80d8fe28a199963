"""One process that runs configurations one after another: python -m launch.execute.worker

Each line of standard input is a JSON list, the configuration's file and the log to write; each is
answered by one line, the exit status. Where standard input ends, the process ends at once, in the
middle of a run too: whoever started it is gone, however that happened.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlfd_dist.__main__ import Prepare

Tasks = queue.SimpleQueue


def main() -> None:
    # Ctrl-C reaches the comparison as well, which passes it on as TERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    tasks: Tasks[tuple[str, str]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        config, log = tasks.get()
        print(run_one(Path(config), Path(log)), file=replies, flush=True)


def _listen(tasks: Tasks[tuple[str, str]]) -> None:
    for line in sys.stdin:
        tasks.put(tuple(json.loads(line)))
    os._exit(0)


def run_one(config: Path, log: Path) -> int:
    """Run one configuration with all output in its log; return the exit status."""
    _redirect(log)
    _forget_peak_memory()
    try:
        from dlfd_dist.__main__ import main as run

        return run([str(config)], _ready())
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()


@functools.cache
def _ready() -> Prepare:
    """Return what prepares every run of this process: the data that they share is read once."""
    from dlfd_dist.data.loaders import DataReader
    from dlfd_dist.jobs import prepare

    return functools.partial(prepare, reader=DataReader())


def _redirect(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.close(file)


def _forget_peak_memory() -> None:
    """Let the peak that a run reports be its own, not that of a run before it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
