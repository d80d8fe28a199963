"""Images decoded once into a memory-mapped uint8 file that all ranks of a node share."""

from __future__ import annotations

import logging
import math
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..locks import locked
from ..progress import followed
from .contents import contents
from .decode import decode
from .manifest import Manifest

logger = logging.getLogger(__name__)

SPOT_CHECKS = 4
"""Rows of the cache that every opening compares with their files."""


def cache_dir(cfg: DataConfig) -> Path:
    """Return data.cache_dir, else $DLFD_CACHE, else a folder under the user's cache."""
    if cfg.cache_dir is not None:
        return Path(cfg.cache_dir).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dlfd-dist"
    return Path(os.environ.get("DLFD_CACHE", default)).expanduser()


def make_cache_dir(cfg: DataConfig) -> Path:
    """Return the cache folder, made if need be."""
    folder = cache_dir(cfg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DataError(
            f"The cache folder {folder} cannot be made ({err.strerror}): "
            "give data.cache_dir or $DLFD_CACHE a folder that can be written."
        ) from err
    return folder


def open_cache(manifest: Manifest, cfg: DataConfig) -> np.ndarray:
    """Return the decoded images as a read-only (N, 3, S, S) uint8 memory map.

    The first process of a node decodes, under a file lock; the others wait and share its pages.
    A file of another shape, or one that does not hold what the images decode to (looked at in
    SPOT_CHECKS rows, in all with data.verify), is made anew. A missing or corrupt image is a
    DataError that names its row, and leaves nothing behind.
    """
    folder, size = make_cache_dir(cfg), cfg.image_size
    found = contents(manifest, folder, verify=cfg.verify)
    draft = "-draft" if manifest.draft else ""
    path = folder / f"images-{size}-{found.key}{draft}.npy"
    images = _opened(path, manifest, cfg)
    if images is not None:
        return images
    try:
        with locked(path.with_suffix(".lock"), wait_s=math.inf):
            images = _opened(path, manifest, cfg)
            if images is None:
                _fill(manifest, size, path)
    except OSError as err:
        raise DataError(
            f"The decoded images cannot be written to {path.parent} ({err.strerror}): "
            "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
        ) from err
    return np.load(path, mmap_mode="r") if images is None else images


def _opened(path: Path, manifest: Manifest, cfg: DataConfig) -> np.ndarray | None:
    """Return what the cache holds; None where it holds nothing, or not these images."""
    if not path.exists():
        return None
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        images = None
    expected = (len(manifest), 3, cfg.image_size, cfg.image_size)
    if images is not None and images.dtype == np.uint8 and images.shape == expected:
        num = len(manifest) if cfg.verify else min(SPOT_CHECKS, len(manifest))
        rows = np.linspace(0, len(manifest) - 1, num).astype(int).tolist()
        if all(np.array_equal(images[row], decode(manifest, row, cfg.image_size)) for row in rows):
            return images
    logger.warning("the decoded images in %s are not those of the files: they are made anew", path)
    return None


def _fill(manifest: Manifest, size: int, path: Path) -> None:
    # Unique on a folder that several hosts share, where process numbers are not.
    partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        images = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.uint8, shape=(len(manifest), 3, size, size)
        )
        _reserve(partial)

        def store(index: int) -> None:
            images[index] = decode(manifest, index, size)

        with ThreadPoolExecutor() as pool:
            done = pool.map(store, range(len(manifest)))
            for _ in followed(done, "decode", len(manifest), unit="image"):
                pass
        images.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Take the disk space now: a full disk is then an OSError, and not a SIGBUS in the mapping."""
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
