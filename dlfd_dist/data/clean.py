"""Equal and near-equal images out of a data set (data.clean): duplicates within a part, leaks
between parts.

Images are equal when their decoded pixels are. Of equal images the first is kept, in the order
retain, forget, val, test and then of the rows: no image is trained on and measured as unseen, none
is to be forgotten and trained on all the same, and the retain set loses only its own
duplicates, as in the published sizes of a clean MUFAC (DESIGN.md, section 2).
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..plain import band, csv_text
from ..run_dir import replacing
from .contents import contents, file_content
from .decode import read_image
from .manifest import Manifest
from .near import NO_PAIRS, Pairs
from .splits import Splits

logger = logging.getLogger(__name__)

SPOT_CHECKS = 8
"""Images that are decoded to see whether stored digests are theirs."""


@dataclass(frozen=True)
class Removed:
    """An image that is left out, and the equal one that is kept."""

    image_path: str
    part: str
    """retain, forget, val or test"""
    reason: str
    """duplicate (of an image of the same part) or leak (of one of another part), or near either"""
    kept_path: str
    kept_part: str


@dataclass(frozen=True)
class Removals:
    """Everything that cleaning left out, in the order of parts and rows; empty without cleaning."""

    images: tuple[Removed, ...] = ()

    def to_csv(self) -> str:
        return csv_text(
            [[field.name for field in fields(Removed)], *(astuple(row) for row in self.images)]
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the list as CSV."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()


def image_digests(manifest: Manifest, folder: Path | None, *, verify: bool = False) -> np.ndarray:
    """Return the SHA-256 of every image's decoded pixels, as N strings of 64 hex digits.

    Files of equal bytes are decoded once. A missing or corrupt image is a DataError that names its
    row.

    Parameters
    ----------
    folder : keeps the result, and has it when it was computed before; None: nothing is written
    verify : decode every image, whatever is kept
    """
    path = None if folder is None else folder / f"pixels-{contents(manifest, folder).key}.npy"
    if path is not None and not verify and (stored := _held(path, manifest)) is not None:
        return stored
    digests = _digests(manifest)
    if path is not None:
        _keep(path, digests)
    return digests


def _held(path: Path, manifest: Manifest) -> np.ndarray | None:
    """Return the digests in a file; None where it holds none, or not those of these images."""
    try:
        digests = np.load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        digests = np.empty(0)
    if digests.shape == (len(manifest),) and digests.dtype == np.dtype("U64"):
        rows = np.linspace(0, len(digests) - 1, min(SPOT_CHECKS, len(digests))).astype(int).tolist()
        if all(digests[row] == _pixel_digest(manifest, row) for row in rows):
            return digests
    logger.warning("the digests in %s are not those of the images: they are made anew", path)
    return None


def _keep(path: Path, digests: np.ndarray) -> None:
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, digests)
    except OSError as err:
        raise DataError(
            f"The digests of the images cannot be written to {path.parent} ({err.strerror}): "
            "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
        ) from err


def _digests(manifest: Manifest) -> np.ndarray:
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(lambda row: file_content(manifest, row), range(len(manifest))))
        row_of = {digest: row for row, digest in reversed(list(enumerate(files)))}
        pixels = pool.map(lambda row: _pixel_digest(manifest, row), row_of.values())
        pixels_of = dict(zip(row_of, pixels, strict=True))
    return np.array([pixels_of[digest] for digest in files])


def _pixel_digest(manifest: Manifest, row: int) -> str:
    image = read_image(manifest, row)
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


def remove_equal(
    manifest: Manifest, splits: Splits, digests: np.ndarray, near: Pairs = NO_PAIRS
) -> tuple[Splits, Removals]:
    """Return the parts with one row of every group of equal images, and what was left out.

    An image is left out when it is a near-duplicate of one that was kept before it. Of a chain of
    shots, in which each is near the next alone, every second one therefore stays.

    Rows keep their numbers, so that raw and clean runs share the decoded images.

    Parameters
    ----------
    digests : (N,) what is the same for equal images
    near : pairs of near-duplicates, as rows that stand for all of their equal ones
    """
    beside = _neighbours(near, digests)
    parts = splits.parts()
    first: dict[str, tuple[int, str]] = {}
    kept: dict[str, list[int]] = {part: [] for part in parts}
    removed = []
    for part, rows in parts.items():
        for row in rows.tolist():
            kept_row, kept_part = first.setdefault(str(digests[row]), (row, part))
            twin = None
            if kept_row == row:
                digest = str(digests[row])
                twin = next((first[d] for d in beside.get(digest, ()) if d in first), None)
                if twin is None:
                    kept[part].append(row)
                    continue
                del first[digest]  # it is not kept, so nothing is left out for its sake
                kept_row, kept_part = twin
            reason = ("" if twin is None else "near ") + (
                "duplicate" if kept_part == part else "leak"
            )
            paths = manifest.image_paths
            removed.append(Removed(paths[row], part, reason, paths[kept_row], kept_part))
    for part, rows in parts.items():
        if len(rows) and not kept[part]:
            raise DataError(
                f"data.clean=true leaves nothing of the {part} set: all of its {len(rows)} images "
                "are equal to images of other parts, or near. Ask for other people or set "
                "data.clean=false."
            )
    removals = Removals(tuple(removed))
    logger.info(
        "data.clean: %d images left out, %d of them leaks",
        len(removed), sum(r.reason.endswith("leak") for r in removed),
    )  # fmt: skip
    stay = sum(r.part == "forget" and r.kept_part == "retain" for r in removed)
    if stay:
        logger.warning(
            "data.clean: %s images of the forget request are equal or near to retain images, "
            "which stay and are trained on: add those to the request if they are to go too",
            band(stay),
        )  # fmt: skip
    clean = {part: np.array(rows, dtype=np.int64) for part, rows in kept.items()}
    return Splits(train=np.union1d(clean["retain"], clean["forget"]), **clean), removals


def _neighbours(near: Pairs, digests: np.ndarray) -> dict[str, list[str]]:
    """Return the digests that are near to each digest."""
    beside: dict[str, list[str]] = {}
    pairs = zip(digests[near.first].tolist(), digests[near.second].tolist(), strict=True)
    for first, other in pairs:
        beside.setdefault(first, []).append(other)
        beside.setdefault(other, []).append(first)
    return beside
