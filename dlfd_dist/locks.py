"""The one lock of this project: between processes, nodes, and on file systems without locks.

A POSIX lock, which NFS, Lustre and GPFS hand across nodes and drop when its holder dies. Where the
file system has none (Lustre without `-o flock`), a file beside it that only one process can create
stands in: its holder touches it, and a file that is not touched any more is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
TOUCH_S = 5.0
"""Seconds between two signs of life of a holder without locks."""
DEAD_S = 60.0
"""A holder on another node that gave no sign of life for so long is taken for dead."""
SIGN_S = 2.0
"""Seconds that a new holder has to write its name; after them a message names nobody."""

_here: set[tuple[int, str]] = set()
"""(process, path) of the locks that threads of this process hold: POSIX locks do not part them."""
_guard = threading.Lock()
_warned: set[str] = set()


class Held(Exception):
    """Another process holds the lock; the text says which, where that is known."""


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = 0.0, poll_s: float = 0.1) -> Iterator[None]:
    """Hold a lock; its file is made, and removed at the end.

    Parameters
    ----------
    wait_s : how long another holder is waited for, math.inf forever

    Raises
    ------
    Held : another process or thread holds it still
    OSError : the file cannot be made
    """
    key = os.getpid(), os.path.abspath(path)
    end = time.monotonic() + wait_s
    while True:
        try:
            _enter(key)
            break
        except Held:
            if time.monotonic() >= end:
                raise
        time.sleep(poll_s)
    try:
        with _between_processes(path, end, poll_s):
            yield
    finally:
        with _guard:
            _here.discard(key)


def _enter(key: tuple[int, str]) -> None:
    with _guard:
        if key in _here:
            raise Held("this process")
        _here.add(key)


@contextlib.contextmanager
def _between_processes(path: Path, end: float, poll_s: float) -> Iterator[None]:
    while True:
        try:
            file = _try(path)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise Held(_holder_in_words(path)) from None
            time.sleep(poll_s)
            continue
        except OSError as err:
            if err.errno not in NO_LOCKS:
                raise
            _warn(path, err)
            break
        with file:
            owner = os.getpid()
            try:
                yield
            finally:
                if os.getpid() == owner:  # and not a process that was forked meanwhile
                    path.unlink(missing_ok=True)
        return
    with _by_file(path, end, poll_s):
        yield


def _try(path: Path) -> IO[str]:
    """Return the locked file; BlockingIOError while another process holds it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            take(file.fileno())
            # A holder removes the file when it ends: a lock on a removed one parts nobody.
            if _same(file.fileno(), path):
                _sign(file, path)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _sign(file: IO[str], path: Path) -> None:
    """Write who holds a lock into its file; on a full disk the file goes again."""
    try:
        file.truncate(0)
        file.write(json.dumps(_identity()))
        file.flush()
    except OSError:
        path.unlink(missing_ok=True)
        raise


def take(fd: int) -> None:
    """Lock an open file without waiting.

    Raises BlockingIOError while another process holds it, and the system's OSError where the file
    system has no locks.
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as err:  # POSIX lets a system say either
        raise BlockingIOError(errno.EAGAIN, err.strerror) from err


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _identity() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "process": os.getpid()}


def _holder_in_words(path: Path) -> str:
    """Return who holds a lock; a holder takes the lock first and writes its name next."""
    end = time.monotonic() + SIGN_S
    while (holder := _holder(path)) is None and path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return f"process {holder['process']} on {holder['host']}" if holder else "another process"


def _holder(path: Path) -> dict[str, str | int] | None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return {"host": holder["host"], "process": int(holder["process"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _warn(path: Path, err: OSError) -> None:
    with _guard:
        is_new = str(path.parent) not in _warned
        _warned.add(str(path.parent))
    if is_new:
        logger.warning(
            "the file system of %s has no locks (%s): a file stands in for each, and one of a "
            "process that died on another node holds for %.0f s", path.parent, err.strerror, DEAD_S,
        )  # fmt: skip


# --- where there are no locks


@contextlib.contextmanager
def _by_file(path: Path, end: float, poll_s: float) -> Iterator[None]:
    path.unlink(missing_ok=True)
    own = path.with_name(f"{path.name}.held")
    while not _create(own):
        if _dead(own):
            _remove_dead(own)
        elif time.monotonic() >= end:
            raise Held(_holder_in_words(own))
        else:
            time.sleep(poll_s)
    ended = threading.Event()
    threading.Thread(target=_touch, args=(own, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if _holder(own) == _identity():
            own.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    """Make the file of a lock; False where there is one. Of several processes one succeeds."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(json.dumps(_identity()))
    return True


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_S):
        with contextlib.suppress(OSError):
            os.utime(path)


def _dead(path: Path) -> bool:
    """Whether the holder has ended: on this node its process, elsewhere its signs of life."""
    holder = _holder(path)
    if holder is not None and holder["host"] == socket.gethostname():
        return not _runs(int(holder["process"]))
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        # By the clock of the file system, which is that of the signs of life.
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > DEAD_S
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_dead(path: Path) -> None:
    """Remove a dead holder's file; that of a process which was faster is put back."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if not _dead(aside):
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
