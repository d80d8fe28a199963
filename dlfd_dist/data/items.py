"""One item of a torch Dataset, (image, label[, identity]), in the one form that the rest knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError


@dataclass(frozen=True)
class Item:
    """An image (channels, height, width), its label and, where it is known, whom it shows."""

    image: Tensor
    label: int | tuple[int, ...]
    identity: str | None


def item_of(part: Any, index: int, where: str) -> Item:
    """Return an item of a set; DataError where it cannot be read or is none.

    where : how messages name it
    """
    given = _read(part, index, where)
    identity = _identity(given[2], where) if len(given) == 3 else None
    return Item(_image(given[0], where), _label(given[1], where), identity)


def image_of(part: Any, index: int, where: str) -> Tensor:
    """Return the image of an item alone, as item_of does."""
    return _image(_read(part, index, where)[0], where)


def _read(part: Any, index: int, where: str) -> Sequence[Any]:
    try:
        given = part[index]
    # A stranger's set may raise anything.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise DataError(f"{where}: the item cannot be read ({lines[0].rstrip('.')}).") from err
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        shown = f"{len(given)} values" if isinstance(given, tuple | list) else type(given).__name__
        raise DataError(
            f"{where}: the item is no (image, label) or (image, label, identity), but {shown}."
        )
    return given


def _image(value: Any, where: str) -> Tensor:
    if isinstance(value, Image.Image):
        pixels = np.asarray(value)
        value = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(np.ascontiguousarray(value))
        except TypeError as err:
            raise DataError(f"{where}: the image is an array of {value.dtype}.") from err
    if not isinstance(value, Tensor):
        raise DataError(
            f"{where}: the image is a {type(value).__name__}: give a tensor, an array or a PIL "
            "image."
        )
    value = value[None] if value.ndim == 2 else value
    if value.ndim != 3 or not value.numel():
        raise DataError(
            f"{where}: the image has the shape {tuple(value.shape)}: it must be (channels, height, "
            "width), or (height, width) where it is grey."
        )
    if value.dtype == torch.bool or value.is_complex():
        raise DataError(f"{where}: the image is of {value.dtype}: give whole or real numbers.")
    return value.detach()


def _label(value: Any, where: str) -> int | tuple[int, ...]:
    """Return a class number, or the zeros and ones of several labels."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    several = isinstance(value, list | tuple)
    numbers = list(value) if several else [value]
    if not numbers or not all(
        isinstance(n, int | float) and float(n).is_integer() for n in numbers
    ):
        raise DataError(
            f"{where}: the label is {value!r:.60}: give a class number from 0, or a row of zeros "
            "and ones."
        )
    whole = tuple(int(n) for n in numbers)
    return whole if several else whole[0]


def _identity(value: Any, where: str) -> str:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: the identity is {value!r:.60}: give a name or a number.")
    return str(value)
