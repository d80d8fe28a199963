"""torch Datasets of (image, label[, identity]) as the rows of a manifest (data.factory).

Nothing is kept of an image but its digest: images are read when a batch needs them. A set says its
labels by `targets` or `labels`, as torchvision's do, or else by every item.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from ..config import DataConfig
from ..errors import DataError
from ..factories import GIVEN, called
from .contents import WHOLE_UP_TO, sample
from .items import Item, image_of, item_of
from .manifest import MAX_CLASSES, Manifest, datasets

PARTS = ("retain", "forget", "val", "test")
WITH_REQUEST = ("train", "val", "test")
READ_TWICE = 8
"""Items of each set that are read again, to see whether they are the same."""


class Sets:
    """The images of several Datasets as those of one, read when they are asked for.

    Attributes
    ----------
    shape, dtype : of one image
    digests : (N,) SHA-256 of the images, empty where one has not been read
    found_range : lowest and highest value per channel of images of floating-point numbers that have
    """

    def __init__(self, parts: Mapping[str, Any]):
        self.parts = dict(parts)
        sizes = [len(part) for part in self.parts.values()]
        self._listed = list(parts.values())
        self._ends = np.cumsum(sizes).tolist()
        self.paths = [f"{name}/{i}" for (name, _), n in zip(parts.items(), sizes, strict=True)
                      for i in range(n)]  # fmt: skip
        self.digests = np.full(len(self.paths), "", dtype="U64")
        first = self.item(0)
        self.shape, self.dtype = tuple(first.image.shape), first.image.dtype
        self._low = torch.full((self.shape[0],), np.inf, dtype=torch.float64)
        self._high = -self._low

    def __len__(self) -> int:
        return len(self.paths)

    def item(self, row: int) -> Item:
        """Return an item; DataError where it is none."""
        return item_of(*self._place(row), self.paths[row])

    def _place(self, row: int) -> tuple[Any, int]:
        """Return the set that a row is of, and its number in it."""
        number = bisect.bisect_right(self._ends, row)
        return self._listed[number], row - (self._ends[number - 1] if number else 0)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """Return the images of rows, (n, channels, height, width)."""
        if not len(rows):
            return torch.empty((0, *self.shape), dtype=self.dtype)
        return torch.stack([self._image(int(row)) for row in rows])

    def _image(self, row: int) -> Tensor:
        image = image_of(*self._place(row), self.paths[row])
        self._check_like_first(image, row)
        return image

    def _check_like_first(self, image: Tensor, row: int) -> None:
        if tuple(image.shape) != self.shape or image.dtype != self.dtype:
            raise DataError(
                f"{self.paths[row]}: the image is {_kind(image.shape, image.dtype)}, and the first "
                f"is {_kind(self.shape, self.dtype)}: all images must be of one size and type."
            )

    def first_rows(self, count: int) -> list[int]:
        """Return the first rows of each set, so many or all of it."""
        starts = [0, *self._ends[:-1]]
        bounds = zip(starts, self._ends, strict=True)
        return [row for start, end in bounds for row in range(start, min(end, start + count))]

    def look(self, row: int) -> Item:
        """Return an item, and keep what tells its image from others."""
        item = self.item(row)
        image = item.image
        self._check_like_first(image, row)
        digest = _digest(image)
        if self.digests[row] not in ("", digest):
            raise DataError(
                f"{self.paths[row]}: the image is another one when it is read again: give the set "
                "without augmentation that draws at random."
            )
        self.digests[row] = digest
        if image.is_floating_point():
            flat = image.double().flatten(1)
            if not bool(torch.isfinite(flat).all()):
                raise DataError(f"{self.paths[row]}: the image has NaN or infinite pixels.")
            self._low = torch.minimum(self._low, flat.amin(1))
            self._high = torch.maximum(self._high, flat.amax(1))
        return item

    @property
    def found_range(self) -> tuple[list[float], list[float]]:
        return self._low.tolist(), self._high.tolist()


def _kind(shape: Sequence[int], dtype: torch.dtype) -> str:
    return f"{' x '.join(map(str, shape))} of {str(dtype).removeprefix('torch.')}"


def _digest(image: Tensor) -> str:
    plain = image.detach().cpu().contiguous()
    content = plain.view(torch.uint8) if plain.ndim else plain
    head = _kind(plain.shape, plain.dtype).encode()
    return hashlib.sha256(head + content.numpy().tobytes()).hexdigest()


@datasets.register("factory")
def load_factory(cfg: DataConfig) -> Manifest:
    """Return the rows of the sets that the function data.factory returns."""
    assert cfg.factory is not None
    returned = called("data.factory", cfg.factory, cfg.args)
    given = _checked(returned, cfg.factory)
    entries = given.pop("forget") if "train" in given and "forget" in given else ()
    images = Sets(given)
    title = "data set" if cfg.factory.startswith(GIVEN) else cfg.factory
    manifest = manifest_of(images, cfg, splits=SPLIT_OF, title=title)
    request = tuple(map(str, entries)) or _request(images, manifest.identities)
    return replace(manifest, published_request=request)


SPLIT_OF = {name: "train" if name in ("retain", "forget") else name for name in (*PARTS, "train")}
"""By the name of a set, the split that its images are of."""


def manifest_of(
    images: Sets, cfg: DataConfig, *, splits: Mapping[str, str], title: str
) -> Manifest:
    """Return the rows of sets; every image of them is looked at, or a sample of many.

    Parameters
    ----------
    splits : train, val, test or nothing by the name of each set
    """
    _check_augmentation(images, cfg)
    people = _look_through(images, cfg)
    labels, names = _labels(images, people.labels, cfg)
    return Manifest(
        root=Path(),
        image_paths=images.paths,
        identities=people.identities,
        labels=labels,
        splits=np.array([splits[path.split("/")[0]] for path in images.paths]),
        label_names=names,
        title=title,
        images=images,
    )


def _check_augmentation(images: Sets, cfg: DataConfig) -> None:
    channels, height, width = images.shape
    is_photograph = channels == 3 and height == width and not images.dtype.is_floating_point
    if cfg.augment != "none" and not is_photograph:
        raise DataError(
            f"data.augment={cfg.augment} is for square images of three channels of whole numbers, "
            f"and these are {_kind(images.shape, images.dtype)}: set data.augment=none."
        )


def _checked(returned: Any, factory: str) -> dict[str, Any]:
    """Return the sets by name, in order; DataError where they are none that can be used."""
    where = "The sets" if factory.startswith(GIVEN) else f"data.factory={factory}"
    if not isinstance(returned, Mapping):
        raise DataError(
            f"{where} returned an object of the type {type(returned).__name__}: it must return a "
            f"dictionary of the sets {', '.join(PARTS)}, or {', '.join(WITH_REQUEST)}."
        )
    wanted = WITH_REQUEST if "train" in returned else PARTS
    optional = {"forget"} if "train" in returned else set()
    missing = [name for name in wanted if returned.get(name) is None]
    others = [str(name) for name in returned if name not in (*wanted, *optional)]
    if missing or others:
        what = f"lack {', '.join(missing)}" if missing else f"have {', '.join(others)} too"
        raise DataError(
            f"{where} {what}: give the sets {', '.join(PARTS)}; or {', '.join(WITH_REQUEST)}, and "
            "name the people to forget."
        )
    for name in wanted:
        _check_set(name, returned[name])
    entries = returned.get("forget") if optional else None
    if entries is not None and not _are_names(entries):
        raise DataError(
            "With a set train, forget is a list of the people of it who are to be forgotten; or "
            "give the sets retain and forget in place of train."
        )
    order = (*wanted, *(optional if entries is not None else ()))
    return {name: returned[name] for name in order}


def _are_names(entries: Any) -> bool:
    listed = isinstance(entries, list | tuple | set | frozenset)
    return listed and bool(entries) and all(isinstance(e, str | int) for e in entries)


def _check_set(name: str, given: Any) -> None:
    try:
        length = len(given)
    except (TypeError, NotImplementedError) as err:
        raise DataError(
            f"The set {name} has no length ({type(given).__name__}): give a map-style Dataset, "
            "with __len__ and __getitem__."
        ) from err
    if not hasattr(given, "__getitem__") or isinstance(given, Mapping):
        raise DataError(
            f"The set {name} is a {type(given).__name__}: give a map-style Dataset, with __len__ "
            "and __getitem__."
        )
    if not length:
        raise DataError(f"The set {name} is empty: give at least one image.")


@dataclass(frozen=True)
class _Known:
    """What is known of all items."""

    labels: list[Any]
    identities: np.ndarray


def _look_through(images: Sets, cfg: DataConfig) -> _Known:
    """Look at every item once; of a large set whose labels are known at a sample of them."""
    count = len(images)
    for row in images.first_rows(READ_TWICE):
        images.look(row)
    labels = _declared(images, "labels")
    identities = _declared(images, "identities")
    are_named = None not in identities or images.item(0).identity is None
    large = count > WHOLE_UP_TO and None not in labels and are_named and not cfg.verify
    rows = sample(images.paths).tolist() if large else range(count)
    known = list(labels)
    people = [
        path if who is None else who for path, who in zip(images.paths, identities, strict=True)
    ]
    for row in rows:
        item = images.look(row)
        if labels[row] is not None and not _same(labels[row], item.label):
            raise DataError(
                f"{images.paths[row]}: the label is {item.label}, and the set's list of labels "
                f"says {labels[row]}: give a set in which both agree."
            )
        known[row] = item.label
        if item.identity is not None:
            people[row] = item.identity
    return _Known(known, np.array([str(person) for person in people]))


def _same(declared: Any, label: Any) -> bool:
    return np.array_equal(np.asarray(declared, dtype=float), np.asarray(label, dtype=float))


ATTRIBUTES = {"labels": ("targets", "labels"), "identities": ("identities",)}
PLACES = {"labels": 1, "identities": 2}


def _declared(images: Sets, what: str) -> list[Any]:
    """Return what the sets say of their items by a list; None of items of a set that has none."""
    lists = [(_list_of(part, what), len(part)) for part in images.parts.values()]
    return [value for values, length in lists for value in (values or [None] * length)]


def _list_of(part: Any, what: str) -> list[Any] | None:
    if isinstance(part, Subset):
        inner = _list_of(part.dataset, what)
        return None if inner is None else [inner[i] for i in part.indices]
    if isinstance(part, ConcatDataset):
        parts = [_list_of(dataset, what) for dataset in part.datasets]
        return None if any(p is None for p in parts) else [v for p in parts if p for v in p]
    if isinstance(part, TensorDataset):
        place = PLACES[what]
        return part.tensors[place].tolist() if len(part.tensors) > place else None
    for name in ATTRIBUTES[what]:
        values = getattr(part, name, None)
        if isinstance(values, Tensor | np.ndarray):
            values = values.tolist()
        if isinstance(values, list | tuple) and len(values) == len(part):
            return list(values)
    return None


def _labels(images: Sets, values: list[Any], cfg: DataConfig) -> tuple[np.ndarray, list[str]]:
    """Return the labels as Manifest has them, and the names of classes or labels."""
    widths = {len(v) if isinstance(v, tuple | list) else 0 for v in values}
    if len(widths) > 1:
        raise DataError(
            "Some items have one label and others several: give every item a class number, or "
            "every item the same number of zeros and ones."
        )
    labels = np.array(values, dtype=np.int64)
    names = next((n for part in images.parts.values() if (n := _class_names(part))), None)
    if labels.ndim == 2:
        wrong = np.flatnonzero(~np.isin(labels, (0, 1)).all(1))
        if len(wrong):
            raise DataError(f"{images.paths[wrong[0]]}: several labels must each be 0 or 1.")
        count = labels.shape[1]
        return labels, names if names and len(names) == count else [str(i) for i in range(count)]
    count = cfg.classes or max(int(labels.max()) + 1, len(names or ()))
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside) or count > MAX_CLASSES:
        row = outside[0] if len(outside) else int(labels.argmax())
        raise DataError(
            f"{images.paths[row]}: the label {labels[row]} is outside of the "
            f"{min(count, MAX_CLASSES)} classes, which are numbered from 0."
        )
    if count < 2:
        raise DataError("All items have the label 0: at least two classes are needed.")
    return labels, names if names and len(names) == count else [str(i) for i in range(count)]


def _class_names(part: Any) -> list[str] | None:
    while isinstance(part, Subset):
        part = part.dataset
    names = getattr(part, "classes", None)
    listed = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
    return list(names) if listed and names else None


def _request(images: Sets, identities: np.ndarray) -> tuple[str, ...]:
    """Return whom the set forget stands for: its people where they are whole, else its images."""
    if "forget" not in images.parts:
        return ()
    parts = np.array([path.split("/")[0] for path in images.paths])
    people = identities[parts == "forget"]
    if np.isin(people, identities[parts == "retain"]).any():
        return tuple(path for path in images.paths if path.startswith("forget/"))
    return tuple(dict.fromkeys(people.tolist()))
