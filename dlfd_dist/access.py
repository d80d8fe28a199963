"""Who may read and write what dlfd makes, by one rule for all files; whose a folder is."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import RunDirError

logger = logging.getLogger(__name__)

MODES = ("700", "750", "770")
"""Of directories: the owner alone; a group that may read; a group that may write too."""
PRIVATE = "700"
UNMAPPED = 65534
"""What a container shows of owners that it does not know, root of the machine among them."""
MAX_LINKS = 40
"""As Linux follows."""
LOOKS = 20
"""How often a folder is looked through whose own folders vanish meanwhile."""


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


@contextlib.contextmanager
def for_others_to_read_only() -> Iterator[None]:
    """Let nobody else write what is made inside the block, whatever run.mode says."""
    before = os.umask(0o077)
    os.umask(before | 0o022)
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


def refuse_foreign(folder: Path, use: str, *, files: Sequence[str] = ("**/*",)) -> None:
    """Raise RunDirError where another user owns, or may write, a folder or files in it.

    Parameters
    ----------
    use : what is done with the files, for the message
    files : patterns of the files; by default everything. The folders that lead to them count too
    """
    _refuse_way(folder, use)
    for path in _with_folders(folder, files):
        try:
            status = path.lstat()
        except FileNotFoundError:
            if path == folder:
                raise
            continue  # a temporary file, which has its name by now
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


def _with_folders(top: Path, files: Sequence[str]) -> Iterator[Path]:
    """Yield a folder and then what the patterns name, each path once and after the folders on the
    way to it."""
    yield top
    seen = {top}
    for path in _named(top, files):
        between = [top / folder for folder in reversed(path.relative_to(top).parents[:-1])]
        yield from (new for new in [*between, path] if new not in seen)
        seen.update([*between, path])


def _named(top: Path, files: Sequence[str]) -> list[Path]:
    """Return what the patterns name; RunDirError where folders vanish again and again."""
    for _ in range(LOOKS):
        # Of a folder that was there a moment ago, the rest has not been looked at.
        with contextlib.suppress(FileNotFoundError):
            return [path for pattern in files for path in top.glob(pattern)]
    raise RunDirError(
        f"{top} changes while dlfd looks through it: end what writes there, or choose another "
        "directory."
    )


def _refuse_way(folder: Path, use: str) -> None:
    """Raise RunDirError where anybody could put another folder in the place of this one; warn where
    the owner or the group of a folder above it could."""
    trusted = (0, os.geteuid(), UNMAPPED)
    way = list(_way(folder.absolute().parent))
    open_to: list[str] = []
    for path in way:
        status, reason = path.lstat(), ""
        is_link, is_sticky = stat.S_ISLNK(status.st_mode), bool(status.st_mode & stat.S_ISVTX)
        if status.st_uid not in trusted:
            if is_link or path == way[-1]:
                reason = "belongs to another user"
            open_to.append(f"the owner of {path}")
        if not is_link and not is_sticky:
            if status.st_mode & 0o002:
                reason = f"may be written by everybody (mode {stat.S_IMODE(status.st_mode):o})"
            elif status.st_mode & 0o020:
                open_to.append(f"the group of {path}")
        if reason:
            raise RunDirError(
                f"{path} {reason}, who can put another folder in the place of {folder}, and dlfd "
                f"{use}: choose a directory that only you can move."
            )
    if open_to:
        logger.warning(
            "%s can put another folder in the place of %s, and dlfd %s: choose another directory "
            "if you do not trust them", " and ".join(open_to), folder, use,
        )  # fmt: skip


def _way(path: Path) -> Iterator[Path]:
    """Yield every folder and every link that lead to an absolute path, and the last one."""
    here, todo, links = Path("/"), [*reversed(path.parts[1:])], 0
    yield here
    while todo:
        name = todo.pop()
        step = here.parent if name == ".." else here / name
        yield step
        if not step.is_symlink():
            here = step
            continue
        links += 1
        if links > MAX_LINKS:
            raise RunDirError(f"{path} leads through more than {MAX_LINKS} links: give its place.")
        target = Path(os.readlink(step))
        here = Path("/") if target.is_absolute() else here
        todo += [part for part in reversed(target.parts) if part != "/"]
