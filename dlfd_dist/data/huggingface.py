"""Folders that `save_to_disk` of Hugging Face's datasets wrote, as rows (data=huggingface).

Nothing is fetched, and no script of a data set is run. Images are decoded as files are; they have
to lie in the folder itself, not at a path of somebody's disk.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..config import DataConfig
from ..errors import ConfigError, DataError
from ..registry import near_match
from .decode import DRAFT, fitted, upright_rgb
from .manifest import MAX_CLASSES, SPLITS, Manifest, datasets, require_root
from .sets import Sets, manifest_of

SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""By the name that a split has in a folder, its name here."""
UNDIVIDED = "all"
"""What a Dataset without splits is called in the names of its images."""


class Rows:
    """One split as a torch Dataset of (image, label[, identity])."""

    def __init__(self, rows: Any, cfg: DataConfig, labels: list[Any], classes: list[str] | None):
        self.labels, self.classes = labels, classes
        self.identities = _identities(rows, cfg)
        self.column = cfg.image_column or "image"
        image = _package().Image(decode=False)
        self._images = rows.select_columns([self.column]).cast_column(self.column, image)
        self._cfg = cfg

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        who = () if self.identities is None else (self.identities[index],)
        return (self._image(index), self.labels[index], *who)

    def _image(self, index: int) -> np.ndarray:
        """Return an image as (3, S, S) uint8."""
        cell, where = self._images[index][self.column], f"the column {self.column}"
        if cell is None or cell["bytes"] is None:
            lack = "is empty" if cell is None else "holds a path in place of an image"
            raise DataError(f"{where} {lack}: save the data set with its images in it")
        cfg = self._cfg
        image = upright_rgb(
            io.BytesIO(cell["bytes"]), where, max_megapixels=cfg.max_megapixels,
            at_least=DRAFT * cfg.image_size if cfg.draft else None,
        )  # fmt: skip
        return fitted(image, cfg.image_size)


@datasets.register("huggingface")
def load_huggingface(cfg: DataConfig) -> Manifest:
    """Read data.root, a Dataset or a DatasetDict that `save_to_disk` of datasets wrote.

    The splits are train, val (or validation) and test; those of a single Dataset stand in
    data.split_column, or are drawn by people. data.label names the column of the label, or several
    columns of zeros and ones.
    """
    root = require_root(cfg)
    parts = _parts(_loaded(root), root, cfg)
    first = next(iter(parts.values()))
    _require_column(first, "data.image_column", cfg.image_column or "image", root)
    if not isinstance(first.features[cfg.image_column or "image"], _package().Image):
        raise DataError(
            f"data.image_column={cfg.image_column or 'image'} of {root} holds no images: cast it "
            "to datasets.Image()."
        )
    for name in cfg.label:
        _require_column(first, "data.label", name, root)
    if cfg.identity_column is not None:
        _require_column(first, "data.identity_column", cfg.identity_column, root)
    labels, classes = _labels(parts, cfg)
    sets = {name: Rows(rows, cfg, labels[name], classes) for name, rows in parts.items()}
    splits = {name: "" if name == UNDIVIDED else name for name in sets}
    return manifest_of(Sets(sets), cfg, splits=splits, title=root.name)


def _package() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as err:
        raise ConfigError(
            "data=huggingface needs the package datasets. Install it with: "
            "pip install 'dlfd-dist[huggingface]'"
        ) from err


def _loaded(root: Path) -> Any:
    try:
        return _package().load_from_disk(str(root)).with_format(None)
    except ConfigError:
        raise
    # datasets and pyarrow raise many kinds for files that are damaged or of another version.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise DataError(
            f"data.root={root} cannot be read ({lines[0].rstrip('.')}): give a folder that "
            "save_to_disk of datasets wrote."
        ) from err


def _parts(loaded: Any, root: Path, cfg: DataConfig) -> dict[str, Any]:
    """Return the rows of each split by its name here."""
    column = cfg.split_column
    if isinstance(loaded, Mapping):
        if column is not None:
            raise DataError(
                f"data.split_column={column} is not allowed: {root} has the splits "
                f"{', '.join(loaded)} already."
            )
        unknown = [name for name in loaded if name not in SPLIT_NAMES]
        if unknown or not loaded:
            raise DataError(
                f"{root} has {f'a split {unknown[0]}' if unknown else 'no split'}: the splits are "
                "train, val (or validation) and test. Rename it or leave it out."
            )
        return {SPLIT_NAMES[name]: rows for name, rows in loaded.items()}
    if column is None and "split" not in loaded.column_names:
        return {UNDIVIDED: loaded}
    column = column or "split"
    _require_column(loaded, "data.split_column", column, root)
    values = np.array([str(value) for value in _values(loaded, column)])
    unknown = sorted(set(values.tolist()) - SPLIT_NAMES.keys())
    if unknown:
        raise DataError(
            f"The column {column} of {root} holds '{unknown[0]}': a split is train, val (or "
            "validation) or test."
        )
    names = np.array([SPLIT_NAMES[value] for value in values])
    return {name: loaded.select(np.flatnonzero(names == name)) for name in SPLITS}


def _require_column(rows: Any, setting: str, name: str, root: Path) -> None:
    if name not in rows.column_names:
        raise DataError(
            f"{setting}={name} is no column of {root}, which has {', '.join(rows.column_names)}."
            + near_match(name, rows.column_names)
        )


def _values(rows: Any, column: str) -> list[Any]:
    """Return a column; of one with class names the names."""
    values = list(rows[column])
    names = getattr(rows.features[column], "names", None)
    if names is None:
        return values
    return [None if value is None or value < 0 else names[value] for value in values]


def _identities(rows: Any, cfg: DataConfig) -> list[str] | None:
    """Return whom each image shows; None where no column says it."""
    column = cfg.identity_column or "identity"
    if column not in rows.column_names:
        return None
    values = _values(rows, column)
    wrong = [i for i, v in enumerate(values) if not isinstance(v, str | int) or v == ""]
    if wrong:
        raise DataError(
            f"Row {wrong[0]} of the column {column} is {values[wrong[0]]!r:.60}: an identity is a "
            "name or a number."
        )
    return [str(value) for value in values]


def _labels(
    parts: Mapping[str, Any], cfg: DataConfig
) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Return the labels of each split, and the names of classes or labels where they have any."""
    several = len(cfg.label) > 1
    read = {
        part: [_label_column(rows, part, column, int if several else str | int | list)
               for column in cfg.label]
        for part, rows in parts.items()
    }  # fmt: skip
    if several:
        return {n: list(zip(*columns, strict=True)) for n, columns in read.items()}, cfg.label
    values = {name: columns[0] for name, columns in read.items()}
    if any(isinstance(value, str) for value in next(iter(values.values()))):
        return _numbered(values, cfg.label[0])
    return values, getattr(next(iter(parts.values())).features[cfg.label[0]], "names", None)


def _label_column(rows: Any, part: str, column: str, allowed: Any) -> list[Any]:
    values = list(rows[column])
    for row, value in enumerate(values):
        if not isinstance(value, allowed):
            raise DataError(
                f"{part}/{row}: the label {column} is {value!r:.60}: a label is a class number, a "
                "name, or a row of zeros and ones; of several columns each is 0 or 1."
            )
    return values


def _numbered(
    values: Mapping[str, Sequence[str]], column: str
) -> tuple[dict[str, list[Any]], list[str]]:
    """Return class numbers of names, in the sorted order of those of the training images."""
    names = sorted(set(values.get("train", values.get(UNDIVIDED, ()))))
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"The column {column} holds {len(names)} names, more than {MAX_CLASSES} classes: name "
            "another column by data.label."
        )
    number = {name: i for i, name in enumerate(names)}
    for part, listed in values.items():
        for row, value in enumerate(listed):
            if value not in number:
                raise DataError(
                    f"{part}/{row}: the label '{value}' is unknown; the training images have "
                    f"{', '.join(names[:12])}."
                )
    return {part: [number[value] for value in listed] for part, listed in values.items()}, names
