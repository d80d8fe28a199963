"""SHA-256 of files, computed once per process while a file does not change."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SAMPLED = "sampled:"
"""How a digest begins that was taken of a part of the images alone."""
SETTLED_S = 2.0
"""A younger file may change again without a change of its times: Lustre counts whole seconds."""


@dataclass(frozen=True)
class FileState:
    """What changes when a file is written or replaced, known without reading it."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    """Of the last change of content or attributes; nobody can set it back."""
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        status = path.stat()
        return cls(
            os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns,
            status.st_ino,
        )  # fmt: skip

    def settled(self) -> bool:
        """Whether any later write shows in the times."""
        return time.time() - max(self.mtime_ns, self.ctime_ns) / 1e9 > SETTLED_S


_known: dict[FileState, str] = {}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; read only where it is not known of the file as it is now."""
    before = FileState.of(path)
    if before in _known:
        return _known[before]
    digest = _read(path)
    if before.settled() and FileState.of(path) == before:
        _known[before] = digest
    return digest


def _read(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def known_files(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Return state and digest of the files whose digest this process knows, as plain values."""
    states = {name: FileState.of(path) for name, path in paths.items()}
    return {n: {**asdict(s), "sha256": _known[s]} for n, s in states.items() if s in _known}


def remember_files(files: Mapping[str, Any]) -> None:
    """Take over what `known_files` returned in another process.

    A digest counts for the file in that state; a file that was changed since is read.
    """
    for values in files.values():
        state = {name: value for name, value in values.items() if name != "sha256"}
        _known[FileState(**state)] = values["sha256"]
