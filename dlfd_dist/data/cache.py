"""Images decoded once into a memory-mapped uint8 file that all ranks of a node share."""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..config import DataConfig
from ..errors import DataError
from ..locks import locked
from .decode import decode
from .manifest import Manifest


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


def digest_images(manifest: Manifest, image_size: int) -> str:
    """Return a digest of what the cache holds: paths, sizes and times of files, and the edge.

    image_size : 0 for images as large as they are
    """
    digest = hashlib.sha256(f"v1 {image_size} {manifest.root}".encode())
    for index, image_path in enumerate(manifest.image_paths):
        try:
            status = (manifest.root / image_path).stat()
        except (OSError, ValueError) as err:
            raise DataError(
                f"{manifest.row(index)}: the image is missing under {manifest.root}."
            ) from err
        digest.update(f"{image_path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def open_cache(manifest: Manifest, cfg: DataConfig) -> np.ndarray:
    """Return the decoded images as a read-only (N, 3, S, S) uint8 memory map.

    The first process of a node decodes, under a file lock; the others wait and share its pages.
    A missing or corrupt image is a DataError that names its row, and leaves nothing behind.
    """
    size = cfg.image_size
    path = cache_dir(cfg) / f"images-{digest_images(manifest, size)}.npy"
    if not path.exists():
        make_cache_dir(cfg)
        try:
            with locked(path.with_suffix(".lock"), wait_s=math.inf):
                if not path.exists():
                    _fill(manifest, size, path)
        except OSError as err:
            raise DataError(
                f"The decoded images cannot be written to {path.parent} ({err.strerror}): "
                "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
            ) from err
    return np.load(path, mmap_mode="r")


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
            for _ in tqdm(done, "decode", len(manifest), leave=False, disable=None):
                pass
        images.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Take the disk space now: a full disk is then an OSError, and not a SIGBUS in the mapping."""
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
