"""A folder of ours alone for Ray, short enough for its sockets, whose paths end at 107 bytes.

Ray keeps sockets, logs and ports of its processes below `ray/` in a temporary folder, and gives
every directory there to everybody (mode 0777), `/tmp/ray` included: whoever shares the machine
could put sockets of their own in the place of Ray's, or have `/tmp/ray` first. Below a folder that
only its owner may enter they cannot.
"""

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
    """Return the variable that gives Ray a folder which this user alone can enter.

    The folder is `dlfd-ray-UID` in RAY_TMPDIR, in TMPDIR or in /tmp, or a private RAY_TMPDIR.
    Raises ConfigError where RAY_TMPDIR is given and cannot be used, or no folder can.
    """
    given = env.get("RAY_TMPDIR")
    if given is not None:
        folder = Path(given)
        return {"RAY_TMPDIR": str(folder if _is_private(folder) else _made(folder, "RAY_TMPDIR"))}
    if (temporary := env.get("TMPDIR")) is not None and not _unusable(Path(temporary)):
        return {"RAY_TMPDIR": str(_made(Path(temporary), "TMPDIR"))}
    return {"RAY_TMPDIR": str(_made(Path("/tmp"), "TMPDIR"))}  # noqa: S108 - below it, ours alone


def _made(folder: Path, setting: str) -> Path:
    """Make our own folder in another; ConfigError where that cannot be."""
    ours = folder / NAME
    if why := _unusable(folder):
        raise ConfigError(f"{setting}={folder} {why}: {_REMEDY}")
    if not _own(ours):
        raise ConfigError(
            f"{ours} is not yours alone, and Ray's sockets would lie there: remove it, or {_REMEDY}"
        )
    return ours


NAME = f"dlfd-ray-{os.getuid()}"
_REMEDY = (
    f"set RAY_TMPDIR to a folder of at most {MAX_BYTES - len(NAME) - 1} characters that you can "
    "write; Ray keeps its sockets there."
)


def _unusable(folder: Path) -> str:
    """Return why there can be no folder for Ray in a folder; nothing where there can."""
    length = len(os.fsencode(folder))
    if length + 1 + len(NAME) > MAX_BYTES:
        return f"has {length} characters"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written"
    return ""


def _is_private(folder: Path) -> bool:
    """Whether a folder is there that this user alone can enter, and short enough."""
    return len(os.fsencode(folder)) <= MAX_BYTES and folder.is_dir() and _alone(folder, 0o077)


def _alone(folder: Path, others: int) -> bool:
    """Whether a directory, and no link, is ours, and none of these bits is set for others."""
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & others
    )


def _own(folder: Path) -> bool:
    """Make a folder that only this user can enter; False where that cannot be."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _alone(folder, 0o022):
            return False
        folder.chmod(0o700)  # nobody else could write, but perhaps read
    except OSError:
        return False
    return os.access(folder, os.W_OK)
