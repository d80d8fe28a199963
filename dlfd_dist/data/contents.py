"""What is in the image files: SHA-256 of their bytes, read again only where a file has changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..digests import SAMPLED, SETTLED_S
from ..errors import DataError
from ..run_dir import replacing
from .decode import check_file
from .manifest import Manifest

logger = logging.getLogger(__name__)

WHOLE_UP_TO = 20_000
"""Images of a set that are all read; of a larger one SAMPLE are, or all with data.verify."""
SAMPLE = 2_000

_read: dict[Path, Index] = {}
"""What this process knows, by the file that keeps it."""


@dataclass(frozen=True)
class Index:
    """The state of every image file when it was read, and its SHA-256.

    Attributes
    ----------
    states : (N, 4) int64: size, mtime_ns, ctime_ns, inode; ctime_ns cannot be set back by anybody,
        so that a file replaced with equal size and time shows
    digests : (N,) strings of 64 hex digits, empty where the file was not read
    """

    states: np.ndarray
    digests: np.ndarray


@dataclass(frozen=True)
class Contents:
    """The image files of a manifest as they are now.

    Attributes
    ----------
    states : as of Index
    digests : (N,) of SHA-256, empty of images outside the sample
    """

    manifest: Manifest
    states: np.ndarray
    digests: np.ndarray

    @property
    def whole(self) -> bool:
        return bool((self.digests != "").all())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the paths and the bytes of the images that were read; of no times, no root.

        It begins with SAMPLED where not all of them were.
        """
        digest = hashlib.sha256()
        for path, content in zip(self.manifest.image_paths, self.digests.tolist(), strict=True):
            if content:
                digest.update(f"{path} {content}\n".encode())
        return ("" if self.whole else SAMPLED) + digest.hexdigest()

    @functools.cached_property
    def key(self) -> str:
        """What tells these images from others in the cache: their bytes, of large sets states."""
        if self.whole:
            return self.digest[:16]
        states = hashlib.sha256(self.states.tobytes())
        states.update(f"{self.manifest.root} {self.digest}".encode())
        return states.hexdigest()[:16]


def contents(
    manifest: Manifest, folder: Path, *, keep: bool = True, verify: bool = False
) -> Contents:
    """Return the contents of the images; a file that cannot be read is a DataError with its row.

    Parameters
    ----------
    folder : has what was read before
    keep : write there what is read now
    verify : read every file, whatever is known
    """
    file = folder / f"contents-{_name(manifest)}.npz"
    states = _states(manifest)
    before = _load(file, len(manifest))
    digests = np.where((before.states == states).all(axis=1), before.digests, "")
    wanted = np.arange(len(manifest)) if verify else sample(manifest.image_paths)
    rows = wanted if verify else wanted[digests[wanted] == ""]
    if len(rows):
        digests[rows] = _hashed(manifest, rows)
        _keep(file, Index(_settled(manifest, states, rows), digests), keep=keep)
    changed = np.flatnonzero((before.digests != "") & (digests != "") & (before.digests != digests))
    if len(changed):
        _tell_changed(manifest, changed)
    only = np.full(len(manifest), "", dtype=digests.dtype)
    only[wanted] = digests[wanted]
    return Contents(manifest, states, only)


def _tell_changed(manifest: Manifest, rows: np.ndarray) -> None:
    """Warn of images whose bytes are not those that were read before."""
    logger.warning(
        "%d of %d images under %s have other contents than when they were read before (%s): "
        "they are read anew, and earlier runs were made with the old ones",
        len(rows), len(manifest), manifest.root, manifest.image_paths[rows[0]],
    )  # fmt: skip


def _name(manifest: Manifest) -> str:
    digest = hashlib.sha256(f"{manifest.root}\n".encode())
    digest.update("\n".join(manifest.image_paths).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def sample(image_paths: Sequence[str]) -> np.ndarray:
    """Return the rows that are read: all, or of a large set those of the lowest path digests."""
    if len(image_paths) <= WHOLE_UP_TO:
        return np.arange(len(image_paths))
    numbers = [hashlib.blake2b(p.encode(), digest_size=8).digest() for p in image_paths]
    return np.sort(np.argsort(np.array(numbers, dtype="S8"), kind="stable")[:SAMPLE])


def _states(manifest: Manifest) -> np.ndarray:
    states = np.empty((len(manifest), 4), dtype=np.int64)
    for row, image_path in enumerate(manifest.image_paths):
        try:
            status = (manifest.root / image_path).stat()
        except (OSError, ValueError) as err:
            raise DataError(
                f"{manifest.row(row)}: the image is missing under {manifest.root}."
            ) from err
        states[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    return states


def _settled(manifest: Manifest, states: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the states, without those of files that may have changed while they were read."""
    settled = states.copy()
    latest = np.maximum(states[rows, 1], states[rows, 2]) / 1e9
    now = _states(manifest)[rows]
    young = (time.time() - latest < SETTLED_S) | (now != states[rows]).any(axis=1)
    settled[rows[young]] = -1
    return settled


def _hashed(manifest: Manifest, rows: np.ndarray) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda row: file_content(manifest, int(row)), rows))


def file_content(manifest: Manifest, row: int) -> str:
    """Return the SHA-256 of the bytes of an image file."""
    path, where = manifest.root / manifest.image_paths[row], manifest.row(row)
    check_file(path, manifest.root, where)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as err:
        raise DataError(f"{where}: the image may not be read ({err.strerror}).") from err


def _load(file: Path, num: int) -> Index:
    """Return what is known; what was written in another shape, or half, counts for nothing."""
    nothing = Index(np.full((num, 4), -1, dtype=np.int64), np.full(num, "", dtype="U64"))
    if file in _read:
        return _read[file]
    try:
        with np.load(file, allow_pickle=False) as arrays:
            index = Index(arrays["states"], arrays["digests"])
    except (OSError, ValueError, KeyError, EOFError):
        return nothing
    fits = index.states.shape == (num, 4) and index.digests.shape == (num,)
    kinds = index.states.dtype == np.int64 and index.digests.dtype == np.dtype("U64")
    return index if fits and kinds else nothing


def _keep(file: Path, index: Index, *, keep: bool) -> None:
    _read[file] = index
    if not keep:
        return
    # Without it the files are only read once more.
    with contextlib.suppress(OSError), replacing(file) as partial, partial.open("wb") as out:
        np.savez(out, states=index.states, digests=index.digests)
