"""Who may read and write what dlfd makes, by one rule for all files; whose a folder is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import RunDirError

MODES = ("700", "750", "770")
"""Of directories: the owner alone; a group that may read; a group that may write too."""
PRIVATE = "700"


def set_mode(mode: str) -> int:
    """Give what this process makes from now on the mode of a directory; return the umask before.

    Files have the same without the right to execute.
    """
    return os.umask(0o777 & ~int(mode, 8))


def read_regular(path: Path) -> bytes:
    """Return what a file holds; OSError for a FIFO or a device, which would never end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read()


@contextlib.contextmanager
def making(mode: str = PRIVATE) -> Iterator[None]:
    """Give what is made inside the block this mode."""
    before = set_mode(mode)
    try:
        yield
    finally:
        os.umask(before)


def level(path: Path) -> None:
    """Give a file, or the files in a folder, the mode of all: safetensors makes them 0600."""
    before = os.umask(0o077)
    os.umask(before)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            file.chmod(0o666 & ~before)


def private_folder(path: Path) -> Path:
    """Return a folder that belongs to this user alone, made if need be.

    Raises RunDirError where somebody else had it first, as anybody can in /tmp.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if path.is_symlink() or not path.is_dir():
        raise RunDirError(f"{path} is not a folder: remove it, or set TMPDIR to a folder of yours.")
    refuse_foreign(path, "keeps its locks there")
    return path


def refuse_foreign(folder: Path, use: str, *, files: str = "**/*") -> None:
    """Raise RunDirError where another user owns, or may write, a folder or files in it.

    Parameters
    ----------
    use : what is done with the files, for the message
    files : which files; by default everything
    """
    for path in (folder, *folder.glob(files)):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            reason = "is a link"
        elif status.st_uid != os.geteuid():
            reason = "belongs to another user"
        elif status.st_mode & 0o022:
            reason = f"may be written by others (mode {stat.S_IMODE(status.st_mode):o})"
        else:
            continue
        raise RunDirError(
            f"{path} {reason}, and dlfd {use}: make all of {folder} yours alone with 'chmod -R "
            "go-w' if you trust what is in it, or choose another directory."
        )
