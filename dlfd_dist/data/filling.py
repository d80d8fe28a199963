"""Several processes fill one array on a file system that they share, each its share of the rows.

They need not know of each other: a folder beside the array holds the unfinished file, a lock for
every part of the rows that is being made, and a mark for every part that is done. The lock of a
process that dies is free, and another one takes its part; what was done stays done.
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..locks import Held, locked
from ..progress import followed

PART_ROWS = 256
"""Rows that a process makes at a time."""


class FolderGone(Exception):
    """Another process has finished the array, or has failed at a row of it."""


def fill(
    path: Path,
    shape: tuple[int, ...],
    row: Callable[[int], np.ndarray],
    *,
    is_finished: Callable[[], bool],
) -> None:
    """Take part in making an array of uint8, which is at `path` when this returns.

    Parameters
    ----------
    row : makes one row; what it raises, every process raises that comes to that row, and nothing
        is left of the array
    is_finished : whether the file at `path` is this array

    Raises
    ------
    FolderGone : somebody else has ended the work; OSError : the file cannot be written
    """
    folder = path.with_suffix(".parts")
    try:
        with locked(path.with_suffix(".lock"), wait_s=math.inf):
            if not folder.exists() and is_finished():
                raise FolderGone
            partial, offset = _begun(folder, shape)
        numbers = list(range(-(-shape[0] // PART_ROWS)))
        # Processes begin at different parts, and come last to those that others were at.
        first = uuid.uuid4().int % len(numbers)
        _fill_parts(numbers[first:] + numbers[:first], folder, partial, offset, shape, row)
        with locked(path.with_suffix(".lock"), wait_s=math.inf):
            # Another process may have ended this work, and a third one begun anew.
            if not all((folder / f"{number}.done").exists() for number in numbers):
                raise FolderGone
            os.replace(partial, path)
            shutil.rmtree(folder, ignore_errors=True)
    except FolderGone:
        raise
    except FileNotFoundError as err:
        raise FolderGone from err
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _begun(folder: Path, shape: tuple[int, ...]) -> tuple[Path, int]:
    """Return the unfinished file, made if need be, and where its first row begins."""
    folder.mkdir(exist_ok=True)
    partial = folder / "images.npy"
    if not partial.exists():
        begun = folder / "begun.npy"
        np.lib.format.open_memmap(begun, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(begun)
        os.replace(begun, partial)
    opened = np.load(partial, mmap_mode="r")
    return partial, opened.offset


def _reserve(path: Path) -> None:
    """Take the disk space now: a full disk is then found before anything is decoded."""
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _fill_parts(
    numbers: list[int],
    folder: Path,
    partial: Path,
    offset: int,
    shape: tuple[int, ...],
    row: Callable[[int], np.ndarray],
) -> None:
    row_bytes = math.prod(shape[1:])

    def make(number: int, wait_s: float) -> None:
        done = folder / f"{number}.done"
        with locked(folder / f"{number}.lock", wait_s=wait_s):
            if not done.exists():
                if not partial.exists():
                    raise FolderGone
                start = number * PART_ROWS
                rows = range(start, min(start + PART_ROWS, shape[0]))
                images = np.stack(list(pool.map(row, rows)))
                _write(partial, offset + start * row_bytes, images)
                done.touch()

    def made() -> Iterator[int]:
        elsewhere = []
        for number in numbers:
            try:
                make(number, 0.0)
            except Held:
                elsewhere.append(number)
            else:
                yield number
        for number in elsewhere:
            make(number, math.inf)
            yield number

    with ThreadPoolExecutor() as pool:
        for _ in followed(made(), "decode", len(numbers), unit="part"):
            pass


def _write(path: Path, offset: int, images: np.ndarray) -> None:
    """Write bytes in place: pages of a mapping that two hosts share would undo each other's."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(images.tobytes())
        file.flush()
        os.fsync(file.fileno())
