"""MUCAC, CelebA-HQ with identities and attributes (Choi and Na, arXiv 2311.02240)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..registry import near_match
from .manifest import Manifest, datasets, require_root

IDENTITY_FILE = "CelebA-HQ-identity.txt"
ATTRIBUTE_FILE = "CelebA-HQ-attribute.txt"
IMAGE_FOLDER = "CelebAMask-HQ/CelebA-HQ-img"

DEFAULT_LABELS = ("Male", "Smiling", "Young")
ALIASES = {"gender": "Male"}
"""What the papers call an attribute -> its CelebA name, where they differ in more than case."""

# Identity numbers of the benchmark (ndb796/MachineUnlearning, 02_MUCAC): below the first test,
# below the second to be forgotten, from the third on val, which its authors call "unseen".
FIRST_TRAIN, FIRST_RETAIN, FIRST_VAL = 190, 1250, 4855


@datasets.register("mucac")
def load_mucac(cfg: DataConfig) -> Manifest:
    """Read the identity and attribute files and CelebAMask-HQ/CelebA-HQ-img of MUCAC.

    `data.label` names CelebA attributes; left out, they are Male, Smiling and Young. Several make
    a multi-label task, one makes a task of two classes, no_X and X. Only images that both files
    name are used.
    """
    root = require_root(cfg)
    columns, attributes = _read_attributes(root / ATTRIBUTE_FILE)
    chosen = [_find_attribute(name, columns) for name in _asked_labels(cfg)]
    people = _read_identities(root / IDENTITY_FILE)
    names = [name for name in people if name in attributes]
    if not names:
        raise DataError(
            f"{IDENTITY_FILE} and {ATTRIBUTE_FILE} under {root} name no image in common."
        )
    _check_images(root / IMAGE_FOLDER, names)
    forget = sorted({people[name] for name in names if FIRST_TRAIN <= people[name] < FIRST_RETAIN})
    values = np.array([[attributes[name][columns.index(c)] for c in chosen] for name in names])
    labels = (values == 1).astype(np.int64)
    multi_label = len(chosen) > 1
    return Manifest(
        root=root,
        image_paths=[f"{IMAGE_FOLDER}/{name}" for name in names],
        identities=np.array([str(people[name]) for name in names]),
        labels=labels if multi_label else labels[:, 0],
        splits=np.array([_split_of(people[name]) for name in names]),
        label_names=chosen if multi_label else [f"no_{chosen[0]}", chosen[0]],
        title="MUCAC",
        published_request=tuple(map(str, forget)),
    )


def _asked_labels(cfg: DataConfig) -> list[str]:
    return list(DEFAULT_LABELS) if cfg.label == ["label"] else cfg.label


def _split_of(identity: int) -> str:
    if identity < FIRST_TRAIN:
        return "test"
    return "train" if identity < FIRST_VAL else "val"


def _find_attribute(name: str, columns: list[str]) -> str:
    """Return the attribute of the file that is meant, whatever its case."""
    wanted = ALIASES.get(name.lower(), name).lower()
    by_lower = {column.lower(): column for column in columns}
    if wanted not in by_lower:
        close = near_match(wanted, by_lower)
        raise DataError(
            f"data.label={name} is no attribute of {ATTRIBUTE_FILE}; it has "
            f"{', '.join(columns)}, and gender stands for Male.{close}"
        )
    return by_lower[wanted]


def _read_lines(path: Path) -> list[list[str]]:
    """Return the words of every line; empty lines count as lines without words."""
    if not path.is_file():
        raise DataError(f"There is no {path.name} at {path.parent}: data.root must hold it.")
    try:
        return [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as err:
        raise DataError(f"{path} is not a text file: {err}.") from err


def _read_identities(path: Path) -> dict[str, int]:
    """Return image name -> identity number from lines such as `0.jpg 1234`."""
    people = {}
    for number, words in enumerate(_read_lines(path), start=1):
        if not words:
            continue
        if len(words) != 2 or not words[1].isdecimal():
            raise DataError(
                f"{path}, line {number}: found '{' '.join(words)}', expected an image name and an "
                "identity number, as in '0.jpg 1234'."
            )
        people[words[0]] = int(words[1])
    return people


def _read_attributes(path: Path) -> tuple[list[str], dict[str, list[int]]]:
    """Return the attribute names (line 2) and image name -> values -1 or 1 (from line 3 on)."""
    lines = _read_lines(path)
    if len(lines) < 3 or not lines[1]:
        raise DataError(
            f"{path} is not a CelebA attribute file: line 1 is the number of images, line 2 the "
            "attribute names, and every other line an image name and its values."
        )
    columns, attributes = lines[1], {}
    for number, words in enumerate(lines[2:], start=3):
        if not words:
            continue
        if len(words) != len(columns) + 1 or not set(words[1:]) <= {"-1", "0", "1"}:
            raise DataError(
                f"{path}, line {number} ({words[0]}): expected {len(columns)} values of 1 or -1 "
                f"after the image name, found {len(words) - 1}: {' '.join(words[1:5])} ..."
            )
        attributes[words[0]] = [int(word) for word in words[1:]]
    return columns, attributes


def _check_images(folder: Path, names: list[str]) -> None:
    """Look for all images with one listing: 30000 single look-ups are slow on a network disk."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: unpack CelebAMask-HQ.zip under data.root.")
    missing = sorted(set(names) - set(os.listdir(folder)))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{IDENTITY_FILE} names {missing[0]}{more}, which {folder} does not have: "
            "unpack the images again or remove these lines."
        )
