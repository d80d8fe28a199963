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
from pathlib import Path

from .task import data_reader, guarded, redirect

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
    redirect(log, anew=True)
    _forget_peak_memory()
    return guarded(functools.partial(_run, config))


def _run(config: Path) -> int:
    from dlfd_dist.__main__ import main
    from dlfd_dist.jobs import prepare

    return main([str(config)], functools.partial(prepare, reader=data_reader()))


def _forget_peak_memory() -> None:
    """Let the peak that a run reports be its own, not that of a run before it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
