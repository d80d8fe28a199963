"""Leak audit: images that are there twice, exactly or nearly, within and across the parts of a run.

An image of a forgotten person that stays in the retain set is trained on all the same; one of the
retain set in test makes the model look better than it is. The pairs are found once per data set
and kept beside its decoded images; which of them leak depends on the request.
"""

from __future__ import annotations

import hashlib
import logging
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..locks import locked
from ..plain import csv_text
from ..run_dir import replacing
from .clean import image_digests
from .contents import contents
from .decode import read_image
from .forget_request import ResolvedRequest
from .manifest import Manifest
from .near import SIDE, SIMILARITY, Pairs, aligned_cosine, near_pairs
from .splits import Splits

logger = logging.getLogger(__name__)

EXACT, NEAR = "exact", "near"
TWINS = ("retain", "forget")
VERSION = "v2"
SPOT_CHECKS = 4
"""Pairs of a kept list that are compared with their images."""


@dataclass(frozen=True)
class Leak:
    """Two images of one picture."""

    kind: str
    """exact: equal pixels; near: cropped, compressed, mirrored or relit"""
    part: str
    image_path: str
    other_part: str
    other_path: str
    similarity: float
    """1 for equal pixels, else the aligned cosine"""


@dataclass(frozen=True)
class LeakAudit:
    """Every pair of a data set, and what it means for a request.

    stay : one sentence per line of the request whose images, or near-duplicates of them, stay in
        the retain set
    """

    pairs: tuple[Leak, ...]
    stay: tuple[str, ...]

    def to_csv(self) -> str:
        return csv_text(
            [[field.name for field in fields(Leak)], *(astuple(row) for row in self.pairs)]
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the list as CSV."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pairs by kind and by the parts they join, as `retain-forget`.

        Exact: how many images of the second part the first has too; `forget-forget`: how many
        images of the request are there again.
        """
        counts: dict[str, dict[str, int]] = {EXACT: {}, NEAR: {}}
        for (kind, *parts), number in sorted(
            Counter((pair.kind, pair.part, pair.other_part) for pair in self.pairs).items()
        ):
            counts[kind]["-".join(parts)] = number
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return what a result tells: numbers and a digest, and nobody's name."""
        return {
            "counts": self.counts(),
            "pairs": len(self.pairs),
            "across_parts": sum(pair.part != pair.other_part for pair in self.pairs),
            "forget_retain": sum((p.part, p.other_part) == TWINS for p in self.pairs),
            "lines_told": len(self.stay),
            "similarity": SIMILARITY,
            "digest": self.digest,
        }


def audit_leaks(
    manifest: Manifest,
    splits: Splits,
    request: ResolvedRequest,
    folder: Path | None,
    *,
    verify: bool = False,
) -> LeakAudit:
    """Return the leaks among the parts; a bad image is a DataError that names its row.

    Of equal images, each is paired with the first of its own part and the first of every part
    before it (retain, forget, val, test). The exact pairs of two parts are then as many as the
    images of the second that the first has too. A near pair of two such groups does the same.

    Parameters
    ----------
    folder : keeps what was computed of the images; None: nothing is written
    verify : compute it, whatever is kept
    """
    place = {
        row: (number, row, part)
        for number, (part, rows) in enumerate(splits.parts().items())
        for row in rows.tolist()
    }
    near = near_duplicates(manifest, folder, verify=verify)
    _, group = np.unique(image_digests(manifest, folder), return_inverse=True)
    there = np.array(sorted(place, key=place.__getitem__), dtype=np.int64)
    several = np.bincount(group[there], minlength=group.max() + 1) > 1
    several[group[near.first]] = several[group[near.second]] = True
    groups: dict[int, list[int]] = {}
    for row in map(int, there[several[group[there]]]):
        groups.setdefault(int(group[row]), []).append(row)
    matches = [
        (EXACT, *pair, 1.0) for rows in groups.values() for pair in _with_firsts(rows, rows, place)
    ]
    similar = zip(group[near.first], group[near.second], map(float, near.similarity), strict=True)
    for first, other, similarity in similar:
        ones, others = groups.get(first, []), groups.get(other, [])
        pairs = _with_firsts(ones, others, place) + _with_firsts(others, ones, place)
        matches += [(NEAR, *pair, similarity) for pair in dict.fromkeys(pairs)]
    part_of = {row: part for row, (_, _, part) in place.items()}
    leaks = [
        Leak(kind, part_of[a], manifest.image_paths[a], part_of[b], manifest.image_paths[b],
             round(similarity, 4))
        for kind, a, b, similarity in matches
    ]  # fmt: skip
    return LeakAudit(tuple(leaks), tuple(_told(manifest, request, part_of, matches)))


def _with_firsts(
    firsts: list[int], rows: list[int], place: dict[int, tuple[int, int, str]]
) -> list[tuple[int, int]]:
    """Pair each of `rows` with the first of `firsts` in every part up to its own.

    Parameters
    ----------
    firsts, rows : in the order of their places
    place : row -> number of its part, row, part
    """
    first_of: dict[str, int] = {}
    for row in firsts:
        first_of.setdefault(place[row][2], row)
    return [(a, b) for b in rows for a in first_of.values() if place[a] < place[b]]


def _told(
    manifest: Manifest,
    request: ResolvedRequest,
    part_of: dict[int, str],
    matches: Sequence[tuple[str, int, int, float]],
) -> list[str]:
    """Say of every line of the request how many of its images have a twin in the retain set."""
    twins = {b for _, a, b, _ in matches if (part_of[a], part_of[b]) == TWINS}
    counts: Counter[str] = Counter()
    for row in twins:
        counts[str(manifest.identities[row])] += 1
        counts[manifest.image_paths[row]] += 1
    names = dict.fromkeys(line.entry for line in request.lines)
    return [
        f"{name}: {counts[name]} of the images to forget {'has' if counts[name] == 1 else 'have'} "
        "a twin in the retain set, which stays and is trained on"
        for name in names
        if counts[name]
    ]


def near_duplicates(manifest: Manifest, folder: Path | None, *, verify: bool = False) -> Pairs:
    """Return the pairs of images that are nearly equal; of equal ones the first stands for all.

    Parameters
    ----------
    folder : keeps the pairs, and has them when they were computed before; None: nothing is written
    verify : compute them, whatever is kept
    """
    if folder is None:
        return _near_duplicates(manifest, image_digests(manifest, None))
    digests = image_digests(manifest, folder, verify=verify)
    path = folder / f"near-{VERSION}-{SIMILARITY}-{contents(manifest, folder).key}.npz"
    pairs = None if verify else _held(path, manifest, digests)
    if pairs is None:
        with locked(path.with_suffix(".lock"), wait_s=math.inf):
            pairs = None if verify else _held(path, manifest, digests)
            if pairs is None:
                pairs = _near_duplicates(manifest, digests)
                _keep(path, pairs, digests)
    return pairs


def _held(path: Path, manifest: Manifest, digests: np.ndarray) -> Pairs | None:
    """Return the pairs in a file; None where it holds none, or not those of these images."""
    try:
        with np.load(path, allow_pickle=False) as file:
            (first, second, similarity), mark = file["pairs"], str(file["mark"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        mark = ""
    else:
        pairs = Pairs(first.astype(np.int64), second.astype(np.int64), similarity)
        if mark == _mark(pairs, digests) and _are_near(manifest, pairs):
            return pairs
    logger.warning("the near-duplicates in %s are not those of the images: looked for anew", path)
    return None


def _mark(pairs: Pairs, digests: np.ndarray) -> str:
    """Return the SHA-256 of the pairs and of the images that they were found among."""
    mark = hashlib.sha256("\n".join(digests.tolist()).encode())
    for part in (pairs.first, pairs.second, pairs.similarity.astype(float)):
        mark.update(part.tobytes())
    return mark.hexdigest()


def _are_near(manifest: Manifest, pairs: Pairs) -> bool:
    """Whether pairs are as alike as they say, looked at in SPOT_CHECKS of them."""
    for at in np.linspace(0, len(pairs) - 1, min(SPOT_CHECKS, len(pairs))).astype(int).tolist():
        first, other = (
            thumbnail(read_image(manifest, int(rows[at]))).astype(np.float32)[None]
            for rows in (pairs.first, pairs.second)
        )
        alike = max(aligned_cosine(turned, other)[0] for turned in (first, first[:, :, ::-1]))
        if not SIMILARITY <= pairs.similarity[at] <= alike + 1e-3:
            return False
    return True


def _near_duplicates(manifest: Manifest, digests: np.ndarray) -> Pairs:
    _, rows = np.unique(digests, return_index=True)
    rows.sort()
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda row: thumbnail(read_image(manifest, int(row))), rows))
    pairs = near_pairs(np.stack(images))
    return Pairs(rows[pairs.first], rows[pairs.second], pairs.similarity)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return (64, 64) uint8 grey: the whole image, squeezed to a square."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8)


def _keep(path: Path, pairs: Pairs, digests: np.ndarray) -> None:
    stacked = np.stack([pairs.first, pairs.second, pairs.similarity]).astype(float)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, pairs=stacked, mark=_mark(pairs, digests))
    except OSError as err:
        raise DataError(
            f"The near-duplicates cannot be written to {path.parent} ({err.strerror}): "
            "give data.cache_dir or $DLFD_CACHE a folder that can be written and has room."
        ) from err
