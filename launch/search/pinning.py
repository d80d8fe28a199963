"""Binding of trials to cores: no two trials on a node share a core, whoever started them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dlfd_dist.access import private_folder
from dlfd_dist.locks import Held, locked


@contextlib.contextmanager
def pinned(num: int) -> Iterator[list[int]]:
    """Bind this thread, and those it starts, to cores that no other trial is bound to.

    Yields the cores; none, and nothing is bound, where fewer than `num` are free.
    """
    folder = private_folder(Path(tempfile.gettempdir()) / f"dlfd-cores-{os.getuid()}")
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        taken = [core for core in sorted(before) if _take(stack, folder / f"core_{core}.lock")]
        cores = taken[:num]
        if len(cores) < num:
            yield []
            return
        os.sched_setaffinity(0, cores)
        try:
            yield cores
        finally:
            os.sched_setaffinity(0, before)


def _take(stack: contextlib.ExitStack, path: Path) -> bool:
    try:
        stack.enter_context(locked(path))
    except Held:
        return False
    return True
