"""Retain, forget, val and test: which rows are which, disjoint by identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..plain import counted
from .manifest import SPLITS, Manifest


@dataclass(frozen=True)
class Splits:
    """Row numbers (sample ids) of each part, ascending; retain + forget = train."""

    train: np.ndarray
    retain: np.ndarray
    forget: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        """Return the parts that are evaluated, by name."""
        return {"retain": self.retain, "forget": self.forget, "val": self.val, "test": self.test}


def assign_splits(manifest: Manifest, cfg: DataConfig) -> np.ndarray:
    """Return the split of every row: the manifest's own, or people drawn by `data.split_seed`.

    Raises DataError when an identity stands in two splits, a split is empty, or only some rows
    name one.
    """
    splits = manifest.splits
    unnamed = splits == ""
    if unnamed.all():
        splits = _draw_splits(manifest, cfg)
    elif unnamed.any():
        row = manifest.row(int(np.flatnonzero(unnamed)[0]))
        raise DataError(f"{row} names no split although other rows do: fill the column or drop it.")
    _check_disjoint(manifest, splits)
    for name in SPLITS:
        if not (splits == name).any():
            raise DataError(f"{manifest.title} has no rows in the split '{name}'.")
    return splits


def _draw_splits(manifest: Manifest, cfg: DataConfig) -> np.ndarray:
    people, person_of_row = manifest.people.names, manifest.people.of_row
    order = np.random.default_rng(cfg.split_seed).permutation(len(people))
    num_val = max(1, round(cfg.val_fraction * len(people)))
    num_test = max(1, round(cfg.test_fraction * len(people)))
    if num_val + num_test >= len(people):
        raise DataError(
            f"{manifest.title} has {counted(len(people), 'person', 'people')}, too few for train, "
            "val and test."
        )
    split_of_person = np.full(len(people), "train", dtype="<U5")
    split_of_person[order[:num_val]] = "val"
    split_of_person[order[num_val : num_val + num_test]] = "test"
    return split_of_person[person_of_row]


def _check_disjoint(manifest: Manifest, splits: np.ndarray) -> None:
    people, person_of_row = manifest.people.names, manifest.people.of_row
    code = np.zeros(len(splits), np.int8)
    for number, name in enumerate(SPLITS):
        code[splits == name] = number
    lowest, highest = np.full(len(people), 9, np.int8), np.full(len(people), -1, np.int8)
    np.minimum.at(lowest, person_of_row, code)
    np.maximum.at(highest, person_of_row, code)
    torn = np.flatnonzero(lowest != highest)
    if len(torn):
        person = people[torn[0]]
        names = sorted(set(splits[person_of_row == torn[0]]))
        raise DataError(
            f"The identity '{person}' stands in two splits ({' and '.join(names)})"
            + (f", and so do {len(torn) - 1} more" if len(torn) > 1 else "")
            + ": give every person one split."
        )


def make_splits(splits: np.ndarray, forget_rows: np.ndarray) -> Splits:
    """Divide the training rows into retain and forget.

    Parameters
    ----------
    splits : (N,) split of every row
    forget_rows : row numbers to forget; rows outside the training split are ignored
    """
    is_train, is_asked = splits == "train", np.zeros(len(splits), bool)
    is_asked[forget_rows] = True
    train, forget, retain = map(
        np.flatnonzero, (is_train, is_train & is_asked, is_train & ~is_asked)
    )
    if len(retain) == 0:
        raise DataError(
            f"The forget request covers all {len(train)} training images: nothing would be "
            "retained, so there is nothing to keep the task with. Ask for fewer people."
        )
    return Splits(
        train, retain, forget, np.flatnonzero(splits == "val"), np.flatnonzero(splits == "test")
    )
