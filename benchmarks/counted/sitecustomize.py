"""What a process does up to its first batch, counted without the help of the code it runs.

Python loads this by itself where its folder is in PYTHONPATH, in every process of a command. Events
go to $DLFD_COUNTED/PID.jsonl: start, torch, manifest (read), hash (of a checkpoint),
model (made, with values or without), run (a worker opens its log), batch (the first of a run).
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("DLFD_COUNTED")
MANIFEST, LOG = "metadata.csv", "console.log"


def note(event: str, **values: Any) -> None:
    own = {"pid": os.getpid(), "time": time.time(), "own_cpu": time.process_time()}
    line = {"event": event, **own, **values}
    file = os.open(f"{FOLDER}/{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.close(file)


def on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | Path):
        return
    path = Path(arguments[0])
    if path.name == LOG:
        note("run", path=str(path))
    elif path.name == MANIFEST and (arguments[1] or "")[:1] == "r" and path.is_file():
        note("manifest", path=str(path))


def processor_seconds() -> float:
    """Return the processor seconds of all processes of the command up to now."""
    ticks = 0
    for name in os.listdir(FOLDER):
        try:
            text = Path(f"/proc/{name.removesuffix('.jsonl')}/stat").read_text()
        except OSError:
            continue
        # User and system time, of the process and of its children that have ended.
        ticks += sum(map(int, text.rpartition(") ")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def watch_models(module: Any) -> None:
    make = module.Classifier.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        note("model", values=not next(self.parameters()).is_meta)

    module.Classifier.__init__ = counted


def watch_hashes(name: str) -> Callable[[Any], None]:
    """Return what counts the calls of a function that hashes a file, where a module defines it."""

    def watch(module: Any) -> None:
        read = getattr(module, name, None)
        if read is None or read.__module__ != module.__name__:
            return

        def counted(path: Path) -> str:
            note("hash", path=str(path))
            return read(path)

        setattr(module, name, counted)

    return watch


def watch_batches(module: Any) -> None:
    shard = module.Batches.shard

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(self, "_counted", False):
            self._counted = True
            note("batch", cpu=processor_seconds())
        return shard(self, *args, **kwargs)

    module.Batches.shard = counted


WATCHED = {
    "torch": lambda _: note("torch"),
    "dlfd_dist.models.classifier": watch_models,
    "dlfd_dist.data.loaders": watch_batches,
    "dlfd_dist.digests": watch_hashes("_read"),
    "dlfd_dist.jobs.context": watch_hashes("file_digest"),
}


class Watch(importlib.abc.MetaPathFinder):
    """Lets a watched module be found as usual, and looks at it once it is loaded."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in WATCHED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            WATCHED[fullname](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    note("start", words=getattr(sys, "orig_argv", []))
    sys.addaudithook(on_audit)
    sys.meta_path.insert(0, Watch())
