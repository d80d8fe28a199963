"""Images decoded once into a memory-mapped uint8 file that all ranks of a node share."""

from __future__ import annotations

import fcntl
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ..config import DataConfig
from ..errors import DataError
from .manifest import Manifest


def cache_dir(cfg: DataConfig) -> Path:
    """Return data.cache_dir, else $DLFD_CACHE, else a folder under the user's cache."""
    if cfg.cache_dir is not None:
        return Path(cfg.cache_dir).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dlfd-dist"
    return Path(os.environ.get("DLFD_CACHE", default))


def decode(manifest: Manifest, index: int, image_size: int) -> np.ndarray:
    """Return one image as (3, image_size, image_size) uint8: shorter edge resized, centre cropped."""
    path = manifest.root / manifest.image_paths[index]
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("RGB")
            fitted = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    except FileNotFoundError as err:
        raise DataError(f"{manifest.row(index)}: the image is missing under {manifest.root}.") from err
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as err:
        raise DataError(f"{manifest.row(index)}: the image cannot be decoded ({err}).") from err
    return np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1)


def digest_images(manifest: Manifest, image_size: int) -> str:
    """Return a digest of what the cache holds: paths, sizes and times of the files, and the edge."""
    digest = hashlib.sha256(f"v1 {image_size} {manifest.root}".encode())
    for index, image_path in enumerate(manifest.image_paths):
        try:
            status = (manifest.root / image_path).stat()
        except OSError as err:
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
    folder = cache_dir(cfg)
    path = folder / f"images-{digest_images(manifest, size)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _fill(manifest, size, path)
        path.with_suffix(".lock").unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _fill(manifest: Manifest, size: int, path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        images = np.lib.format.open_memmap(
            partial, mode="w+", dtype=np.uint8, shape=(len(manifest), 3, size, size)
        )
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(lambda i: decode(manifest, i, size), range(len(manifest)))
            for i, image in enumerate(tqdm(decoded, "decode", len(manifest), leave=False, disable=None)):
                images[i] = image
        images.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
