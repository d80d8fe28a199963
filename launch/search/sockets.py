"""A folder for Ray's sockets, whose paths the system limits to 107 bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from dlfd_dist.errors import ConfigError

MAX_SOCKET_BYTES = 107
"""Of the path of a Unix socket on Linux."""
BELOW = "/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.10"
"""The longest path that Ray makes below its folder."""
MAX_BYTES = MAX_SOCKET_BYTES - len(BELOW)


def ray_folder(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that gives Ray a folder of ours where TMPDIR cannot be used; else none.

    Raises ConfigError where RAY_TMPDIR is given and cannot be used, or no folder can.
    """
    given = env.get("RAY_TMPDIR")
    if given is not None:
        if why := _unusable(Path(given)):
            raise ConfigError(f"RAY_TMPDIR={given} {why}: {_REMEDY}")
        return {}
    folder = Path(env.get("TMPDIR", "/tmp"))  # noqa: S108 - where Ray itself would go
    why = _unusable(folder)
    if not why:
        return {}
    ours = Path(f"/tmp/dlfd-ray-{os.getuid()}")  # noqa: S108 - used only if it is ours alone
    if _own(ours):
        return {"RAY_TMPDIR": str(ours)}
    raise ConfigError(f"TMPDIR={folder} {why}, and {ours} cannot be used either: {_REMEDY}")


_REMEDY = (
    f"set RAY_TMPDIR to a folder of at most {MAX_BYTES} characters that you can write; Ray keeps "
    "its sockets there."
)


def _unusable(folder: Path) -> str:
    """Return why Ray cannot use a folder; nothing where it can."""
    length = len(os.fsencode(folder))
    if length > MAX_BYTES:
        return f"has {length} characters"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    return ""


def _own(folder: Path) -> bool:
    """Make a folder that only this user can use; False where that cannot be."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and private and os.access(folder, os.W_OK)
