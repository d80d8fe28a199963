"""Images decoded once into a memory-mapped uint8 file that all ranks share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from .contents import contents
from .decode import decode
from .filling import FolderGone, fill
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

    All processes that open it at once, on every node that shares the folder, decode their shares.
    A file of another shape, or one that does not hold what the images decode to (looked at in
    SPOT_CHECKS rows, in all with data.verify), is made anew. A missing or corrupt image is a
    DataError that names its row, and leaves nothing behind.
    """
    folder, size = make_cache_dir(cfg), cfg.image_size
    index = contents(manifest, folder, verify=cfg.verify)
    draft = "-draft" if manifest.draft else ""
    path = folder / f"images-{size}-{index.key}{draft}.npy"
    shape = (len(manifest), 3, size, size)
    while (images := _opened(path, manifest, cfg)) is None:
        try:
            fill(
                path, shape, lambda row: decode(manifest, row, size),
                is_finished=lambda: _opened(path, manifest, cfg) is not None,
            )  # fmt: skip
            return np.load(path, mmap_mode="r")
        except FolderGone:
            continue
        except OSError as err:
            raise DataError(
                f"The decoded images cannot be written to {path.parent} ({err.strerror}): "
                "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
            ) from err
    return images


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
