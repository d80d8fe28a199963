"""MUFAC, Korean family photographs with an age class (Choi and Na, arXiv 2311.02240)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from .manifest import (
    SPLITS,
    Manifest,
    check_inside,
    datasets,
    require_label,
    require_root,
)
from .tables import read_rows

AGE_CLASSES = {
    "a": "0-6",
    "b": "7-12",
    "c": "13-19",
    "d": "20-30",
    "e": "31-45",
    "f": "46-55",
    "g": "56-66",
    "h": "67-80",
}
"""Age letter of the CSV -> years; the class number is the position of the letter."""

NUM_FORGET = 1500
"""The benchmark forgets the first so many rows of custom_train_dataset.csv (MUFAC_loader.py)."""

# family _ kind _ member _ age today _ age class in the picture and index: F0001_AGE_D_18_a1.jpg
FILE_NAME = re.compile(r"(F\d+)_[A-Z]+_([A-Z]+\d*)_\d+_[a-h]\d+")
FAMILY = re.compile(r"F\d+")


@datasets.register("mufac")
def load_mufac(cfg: DataConfig) -> Manifest:
    """Read custom_{train,val,test}_dataset.csv and the folders {train,val,test}_images of MUFAC.

    The label is the age class, the identity is family and member (F0001_D). The splits keep the
    names of the files; the authors' loader calls val "test" and test "unseen".
    """
    root = require_root(cfg)
    require_label(cfg, "age_class")
    image_paths, identities, labels, splits = [], [], [], []
    for split in SPLITS:
        path = root / f"custom_{split}_dataset.csv"
        for number, row in enumerate(read_rows(path, ["image_path", "age_class"]), start=2):
            where = f"{path}, row {number}"
            image_path = row["image_path"].strip()
            check_inside(root, image_path, where)
            image_paths.append(f"{split}_images/{image_path}")
            identities.append(parse_identity(image_path, where))
            labels.append(_age_class(row["age_class"].strip(), where))
            splits.append(split)
    return Manifest(
        root=root,
        image_paths=image_paths,
        identities=np.array(identities),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits),
        label_names=list(AGE_CLASSES.values()),
        title="MUFAC",
        published_request=tuple(image_paths[: min(NUM_FORGET, splits.count("train"))]),
    )


def parse_identity(image_path: str, where: str) -> str:
    """Return the person in a file name, or the family where the name tells no more.

    >>> parse_identity("F0001_AGE_D_18_a1.jpg", "row 2")
    'F0001_D'
    """
    stem = Path(image_path).stem
    if person := FILE_NAME.fullmatch(stem):
        return f"{person[1]}_{person[2]}"
    if family := FAMILY.match(stem):
        return family[0]
    raise DataError(
        f"{where}: the file name {image_path} tells no person; "
        "a MUFAC name begins with the family, as in F0001_AGE_D_18_a1.jpg."
    )


def _age_class(letter: str, where: str) -> int:
    if letter not in AGE_CLASSES:
        raise DataError(
            f"{where}: the age class '{letter}' is unknown; it must be a letter from a to h."
        )
    return list(AGE_CLASSES).index(letter)
