"""A data set as rows: image path, identity, label and split; checked when it is read."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..registry import Registry, near_match
from .tables import read_columns

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "val", "test")

MAX_CLASSES = 10_000
"""Larger integer labels are refused: they are codes (a date, a person), not class numbers."""


CHUNK = 1_000_000
"""Rows that are Python objects at a time, where all of them would take gigabytes."""

MAX_GROUPS = 50
"""A column with more values is a number or a name, not a group of people."""


class Images(Protocol):
    """The images of a set that are no files, read when they are asked for."""

    shape: tuple[int, ...]
    """channels, height and width of each"""
    dtype: torch.dtype
    digests: np.ndarray
    """(N,) SHA-256 of each, empty where it has not been read"""

    @property
    def found_range(self) -> tuple[list[float], list[float]]:
        """Return the lowest and the highest value per channel of those that have."""
        ...

    def __getitem__(self, rows: np.ndarray) -> torch.Tensor: ...


@dataclass(frozen=True)
class People:
    """Who is on the images of a data set.

    Attributes
    ----------
    names : (P,) the identities, sorted
    of_row : (N,) number of the person of each row
    """

    names: np.ndarray
    of_row: np.ndarray

    @classmethod
    def of(cls, identities: np.ndarray) -> People:
        """Number people by their names: by hashing, since to sort ten million takes minutes."""
        number: dict[str, int] = {}
        of_row = np.empty(len(identities), np.int64)
        for start in range(0, len(identities), CHUNK):
            part = identities[start : start + CHUNK].tolist()
            for name in dict.fromkeys(part):
                number.setdefault(name, len(number))
            of_row[start : start + len(part)] = np.fromiter(map(number.__getitem__, part), np.int64)
        names = np.array(list(number), dtype=identities.dtype)
        order = np.argsort(names)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        # In place: of ten million rows, two arrays take as much as the names of all people.
        np.take(rank, of_row, out=of_row, mode="clip")
        return cls(names[order], of_row)

    def rows_of(self, asked: Set[str]) -> dict[str, np.ndarray]:
        """Return the rows of everybody who is asked for and is there, in order."""
        known = np.isin(self.names, list(asked))
        if not known.any():
            return {}
        rows = np.flatnonzero(known[self.of_row])
        rows = rows[np.argsort(self.of_row[rows], kind="stable")]
        persons, starts = np.unique(self.of_row[rows], return_index=True)
        parts = np.split(rows, starts[1:])
        return {str(self.names[k]): part for k, part in zip(persons, parts, strict=True)}


@dataclass(frozen=True)
class Manifest:
    """The rows of a data set.

    Attributes
    ----------
    root : folder that the image paths are relative to
    image_paths : N paths
    identities : array of N strings; where a set names no people, each image is its own person
    labels : int64 array, (N,) classes or (N, L) zeros and ones of a multi-label task
    splits : array of N strings out of train, val, test; empty strings where the set names none
    label_names : names of the C classes, or of the L labels
    title : what the set is called in reports
    synthetic : drawn faces, said wherever they are shown
    may_show : whether its images may appear in a report
    published_request : the forget request of the authors' benchmark, as the lines of a request
        file; empty where there is none
    max_megapixels : largest image that is decoded, in million pixels
    draft : whether large JPEGs are decoded at a reduced size where a small one is asked for
    groups : the columns of data.groups, each an array of N strings
    images : of a set whose images are no files
    """

    root: Path
    image_paths: list[str]
    identities: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    label_names: list[str]
    title: str
    synthetic: bool = False
    may_show: bool = False
    credit: str = ""
    published_request: tuple[str, ...] = ()
    max_megapixels: float = 80.0
    draft: bool = False
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    images: Images | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.image_paths)

    @functools.cached_property
    def people(self) -> People:
        return People.of(self.identities)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def image_shape(self, cfg: DataConfig) -> tuple[int, ...]:
        """Return channels, height and width of an image as a model reads it."""
        if self.images is not None:
            return self.images.shape
        return 3, cfg.image_size, cfg.image_size

    @property
    def num_outputs(self) -> int:
        return len(self.label_names)

    def row(self, index: int) -> str:
        """Return how messages name a row: as a line of the CSV, whose header is line 1."""
        return f"row {index + 2} ({self.image_paths[index]})"


datasets: Registry = Registry("data")
"""Data set name -> function of a DataConfig that returns its Manifest."""


def require_root(cfg: DataConfig) -> Path:
    """Return the folder of the data set."""
    if cfg.root is None:
        raise DataError(f"data.root is missing: data={cfg.name} needs data.root=DIR, its folder.")
    root = Path(cfg.root).expanduser()
    if not root.is_dir():
        raise DataError(f"data.root={cfg.root} is not a folder: looked for {root.absolute()}.")
    return root.resolve()


def require_label(cfg: DataConfig, *names: str) -> None:
    """Refuse a `data.label` that a data set with one fixed label would have to ignore."""
    allowed = ("label", *names)
    if len(cfg.label) > 1 or cfg.label[0] not in allowed:
        raise DataError(
            f"data.label={','.join(cfg.label)} is not known: data={cfg.name} has only the label "
            f"{' or '.join(allowed)}; leave data.label out." + near_match(cfg.label[0], allowed)
        )


def check_inside(root: Path, image_path: str, where: str) -> None:
    """Refuse a path that leaves the data folder."""
    # A Path takes twenty times as long to make as these two looks, and a manifest has many.
    if image_path.startswith("/") or (".." in image_path and ".." in Path(image_path).parts):
        raise DataError(
            f"{where}: {image_path} leads out of data.root={root}; paths must stay inside."
        )


def check_all_inside(root: Path, image_paths: Sequence[str], where: Path) -> None:
    """Refuse the first path of a table that leaves the data folder."""
    for start in range(0, len(image_paths), CHUNK):
        part = image_paths[start : start + CHUNK]
        # One look at the text of a million paths costs less than a thousand at a path each.
        text = "\n" + "\n".join(part)
        if ".." in text or "\n/" in text:
            for number, image_path in enumerate(part, start=start + 2):
                check_inside(root, image_path, f"{where}, row {number}")


def encode_classes(
    values: Sequence[str], names: Sequence[str] | None, splits: np.ndarray, where: str
) -> tuple[np.ndarray, list[str]]:
    """Return class numbers and class names; the classes are those of the training rows.

    Whole numbers (2, 02, 2.0) are kept as they are, 0..C-1; other labels are numbered in sorted
    order. A missing value (nan, null, N/A) and a number that is not whole are refused.
    """
    # There are few labels and many rows: what costs more than a look is done once for each label.
    distinct = list(dict.fromkeys(values))
    code_of = {value: code for code, value in enumerate(distinct)}
    codes = np.fromiter(map(code_of.__getitem__, values), np.int64, len(values))
    counts = np.bincount(codes[(splits == "train") | (splits == "")], minlength=len(distinct))
    train = {value for value, count in zip(distinct, counts, strict=True) if count}
    numeric = _are_numbers(train)
    _check_values(values, numeric, where)
    if numeric:
        plain = {v: str(_whole(v)) if _NUMBER.fullmatch(v) else v for v in distinct}
        distinct = list(plain.values())
        largest = max((int(plain[v]) for v in train), default=-1)
        if largest >= MAX_CLASSES:
            raise DataError(
                f"{where}: the label {largest} is too large for a class number; "
                f"integer labels are 0..C-1 with C at most {MAX_CLASSES}. Number the classes anew."
            )
        classes = [str(i) for i in range(largest + 1)]
    else:
        classes = sorted(train)
    number = {value: i for i, value in enumerate(classes)}
    unknown = [code for code, value in enumerate(distinct) if value not in number]
    if unknown:
        index = int(np.isin(codes, unknown).argmax())
        raise DataError(
            f"{where}, row {index + 2}: the label '{distinct[codes[index]]}' is unknown; "
            f"the training rows have {', '.join(classes[:12]) or 'no class'}."
        )
    labels = np.array([number[value] for value in distinct], np.int64)[codes]
    if len(classes) < 2:
        raise DataError(f"{where}: the training rows have one label only ({', '.join(classes)}).")
    return labels, classes if names is None else _name_classes(labels, names, classes, where)


_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)
MISSING = frozenset({"nan", "<na>", "n/a", "nat", "null"})
"""Lower-case words for a value that is not there, whatever the other labels are."""
MISSING_NUMBER = MISSING | {"na", "none", "inf", "-inf", "?", "-"}
"""Those where the other labels are numbers; a class may well be called none."""


def _are_numbers(values: Set[str]) -> bool:
    """Return whether labels are class numbers, some of which may be missing."""
    known = [value for value in values if value.lower() not in MISSING_NUMBER]
    return bool(known) and all(_NUMBER.fullmatch(value) for value in known)


def _check_values(values: Sequence[str], numeric: bool, where: str) -> None:
    """Refuse the first row whose label is missing, or is a number that is not whole."""
    missing = MISSING_NUMBER if numeric else MISSING
    wrong = {value: "is a missing value" for value in set(values) if value.lower() in missing}
    if numeric:
        wrong |= {
            value: "is no class number"
            for value in set(values)
            if _NUMBER.fullmatch(value) and _whole(value) is None
        }
    if wrong:
        index = next(i for i, value in enumerate(values) if value in wrong)
        raise DataError(
            f"{where}, row {index + 2}: the label '{values[index]}' {wrong[values[index]]}: "
            "labels are whole numbers from 0, or names; correct or remove the row."
        )


def _whole(value: str) -> int | None:
    """Return a whole number as written by people and by pandas (3, 03, 3.0, 3e0), else None."""
    number = float(value)
    return int(number) if number.is_integer() else None


def _name_classes(
    labels: np.ndarray, names: Sequence[str], classes: Sequence[str], where: str
) -> list[str]:
    """Return the class names that the rows give; a class without rows keeps its number."""
    shown: dict[int, str] = {}
    for index, (label, name) in enumerate(zip(labels.tolist(), names, strict=True)):
        if name and shown.setdefault(label, name) != name:
            raise DataError(
                f"{where}, row {index + 2}: the label {classes[label]} is named '{name}', but "
                f"'{shown[label]}' in an earlier row; give every label one name."
            )
    return [shown.get(i, value) for i, value in enumerate(classes)]


def encode_multi_label(columns: Mapping[str, Sequence[str]], where: str) -> np.ndarray:
    """Return a (N, L) array of zeros and ones; -1 counts as 0, as in CelebA."""
    meaning = {"0": 0, "1": 1, "-1": 0}
    unknown = [
        (next(i for i, value in enumerate(values) if value not in meaning), name)
        for name, values in columns.items()
        if not meaning.keys() >= set(values)
    ]
    if unknown:
        index, name = min(unknown, key=lambda entry: entry[0])
        raise DataError(
            f"{where}, row {index + 2}: the label {name}='{columns[name][index]}' is unknown; "
            "a multi-label column holds 0, 1 or -1."
        )
    labels = [[meaning[value] for value in values] for values in columns.values()]
    return np.array(labels, dtype=np.int64).T.copy()


@datasets.register("manifest")
def load_manifest(cfg: DataConfig) -> Manifest:
    """Read `data.manifest` under `data.root`, a CSV or Parquet file.

    Its columns are image_path, identity, the label and, if need be, split.
    """
    root = require_root(cfg)
    path = root / cfg.manifest
    more = ["split", f"{cfg.label[0]}_name", *cfg.groups]
    columns = read_columns(path, ["image_path", "identity", *cfg.label], more)
    check_all_inside(root, columns["image_path"], path)
    splits = columns.get("split") or [""] * len(columns["image_path"])
    if not {*SPLITS, ""} >= set(splits):
        index = next(i for i, split in enumerate(splits) if split not in (*SPLITS, ""))
        raise DataError(
            f"{path}, row {index + 2}: split '{splits[index]}' is unknown; "
            "it must be train, val or test."
        )
    split_of_row = np.array(splits)
    if len(cfg.label) > 1:
        labels = encode_multi_label({name: columns[name] for name in cfg.label}, str(path))
        label_names = list(cfg.label)
    else:
        label = cfg.label[0]
        names = columns.get(f"{label}_name")
        labels, label_names = encode_classes(columns[label], names, split_of_row, str(path))
    return Manifest(
        root=root,
        image_paths=columns["image_path"],
        identities=np.array(columns["identity"]),
        labels=labels,
        splits=split_of_row,
        label_names=label_names,
        title=root.name,
        groups=_groups(cfg.groups, columns, path),
    )


def _groups(
    names: Sequence[str], columns: Mapping[str, Sequence[str]], path: Path
) -> dict[str, np.ndarray]:
    """Return the columns of data.groups; a row that leaves one empty is of the group 'unknown'."""
    groups = {}
    for name in names:
        if name not in columns:
            raise DataError(
                f"data.groups={name} is no column of {path}, which has {', '.join(columns)}."
                + near_match(name, list(columns))
            )
        values = np.array([value or "unknown" for value in columns[name]])
        if (number := len(np.unique(values))) > MAX_GROUPS:
            raise DataError(
                f"data.groups={name} has {number} values: name a column of at most {MAX_GROUPS} "
                f"groups of people."
            )
        groups[name] = values
    return groups
