"""A data set ready to train on: rows resolved, images cached, batches on the device."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..config import DataConfig, ForgetConfig
from ..errors import DataError
from ..runtime.collectives import Collectives
from .ahead import Ahead
from .cache import cache_dir, make_cache_dir, open_cache
from .clean import Removals, image_digests, remove_equal
from .contents import Contents, contents
from .forget_request import ResolvedRequest, forget_rows
from .leaks import LeakAudit, audit_leaks, near_duplicates
from .manifest import CHUNK, Images, Manifest, datasets
from .near import NO_PAIRS
from .pixels import Pixels
from .splits import Splits, assign_splits, make_splits
from .synthetic import describe_synthetic
from .transforms import augment_batch, augmentation

T = TypeVar("T")


@dataclass(frozen=True)
class ResolvedRows:
    """Rows, split and request of a configuration; images are read where data.clean asks for it."""

    manifest: Manifest
    splits: Splits
    request: ResolvedRequest
    removals: Removals = field(default=Removals(), kw_only=True)
    """what data.clean left out of the parts and of the request"""
    uncleaned: Splits | None = field(default=None, kw_only=True)
    """the parts before that; None without data.clean"""
    contents: Callable[[], Contents] | None = field(default=None, kw_only=True)
    """reads the image files, once; None of drawn faces, which their settings determine"""

    def digests(self) -> dict[str, str]:
        """Return SHA-256 of the rows with their split, of the images, the request and removals."""
        return dict(self._digests)

    @functools.cached_property
    def _digests(self) -> dict[str, str]:
        m, digest = self.manifest, hashlib.sha256()
        for values in (m.image_paths, m.identities, m.labels, m.label_names):
            for part in _text_of(values):
                digest.update(part.encode())
        for name, values in m.groups.items():
            digest.update(repr((name, values.tolist())).encode())
        for part in (self.splits.train, self.splits.val, self.splits.test):
            digest.update(part.astype("<i8").tobytes() + b"|")
        removed = {"removed": self.removals.digest} if self.removals.images else {}
        images = {"images": self.contents().digest} if self.contents else {}
        return {"data": digest.hexdigest(), "request": self.request.digest} | images | removed


def _text_of(values: Sequence[Any] | np.ndarray) -> Iterator[str]:
    """Yield the text of a list as Python writes it, in parts: that of ten million rows is long."""
    before = "["
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        part = part.tolist() if isinstance(part, np.ndarray) else list(part)
        yield before + repr(part)[1:-1]
        before = ", "
    yield "[]" if not len(values) else "]"


@dataclass(frozen=True)
class ResolvedData(ResolvedRows):
    """The rows with their decoded images; nothing is on a device yet."""

    images: np.ndarray | Images
    """(N, 3, S, S) uint8, memory-mapped; or what reads them when they are asked for"""
    leaks: LeakAudit | None = field(default=None, kw_only=True)
    """None: not looked for (data.leaks=false, or drawn faces)"""


def load_rows(cfg: DataConfig, *, draw: bool = True) -> Manifest:
    """Return the manifest of a data set; `draw` as in resolve_rows."""
    if cfg.groups and cfg.name != "manifest":
        raise DataError(
            f"data.groups={','.join(cfg.groups)} is not known with data={cfg.name}, whose people "
            "have no groups: take data=manifest, whose columns they are, or leave data.groups out."
        )
    describes = cfg.name == "synthetic" and not draw
    manifest = describe_synthetic(cfg) if describes else datasets.get(cfg.name)(cfg)
    return replace(manifest, max_megapixels=cfg.max_megapixels, draft=cfg.draft)


def resolve_rows(cfg: DataConfig, forget: ForgetConfig, *, draw: bool = True) -> ResolvedRows:
    """Load the manifest, divide it, resolve the request and leave out what data.clean says.

    Parameters
    ----------
    draw : let data=synthetic draw its images and data.clean keep its digests; off, nothing at all
        is written

    Raises DataError for anything in them that is not usable.
    """
    manifest = load_rows(cfg, draw=draw)
    split_of_row = assign_splits(manifest, cfg)
    read = content_reader(manifest, cfg, keep=draw)
    return _with_request(manifest, split_of_row, read, cfg, forget, draw=draw)


def content_reader(
    manifest: Manifest, cfg: DataConfig, *, keep: bool
) -> Callable[[], Contents] | None:
    """Return what reads the contents of the images at its first call; None of drawn faces.

    keep : write what was read into the cache folder, and tell of images that have changed
    """
    if manifest.synthetic:
        return None
    if (images := manifest.images) is not None:
        return lambda: Contents(manifest, np.empty((len(manifest), 0)), images.digests)

    @functools.cache
    def read() -> Contents:
        folder = make_cache_dir(cfg) if keep else cache_dir(cfg)
        return contents(manifest, folder, keep=keep, verify=cfg.verify)

    return read


def _with_request(
    manifest: Manifest,
    split_of_row: np.ndarray,
    read: Callable[[], Contents] | None,
    cfg: DataConfig,
    forget: ForgetConfig,
    *,
    draw: bool,
) -> ResolvedRows:
    request = forget_rows(forget, manifest, split_of_row)
    splits = make_splits(split_of_row, request.rows)
    if not cfg.clean:
        return ResolvedRows(manifest, splits, request, contents=read)
    folder = make_cache_dir(cfg) if draw else None
    digests = image_digests(manifest, folder, verify=cfg.verify)
    near = near_duplicates(manifest, folder, verify=cfg.verify) if cfg.clean_near else NO_PAIRS
    clean, removals = remove_equal(manifest, splits, digests, near)
    request = replace(request, rows=clean.forget)
    return ResolvedRows(
        manifest, clean, request, removals=removals, uncleaned=splits, contents=read
    )


def rows_key(cfg: DataConfig, forget: ForgetConfig) -> str:
    """Return what tells a data set and the people to forget in it from others."""
    return repr((cfg, forget))


class RowReader:
    """Resolves rows as resolve_rows does: every request once, and its data set once for all.

    draw : as in resolve_rows
    """

    def __init__(self, *, draw: bool = True):
        self.draw = draw
        self.resolved: dict[str, ResolvedRows] = {}
        self.manifests: dict[str, tuple[Manifest, np.ndarray, Callable[[], Contents] | None]] = {}

    def __call__(self, cfg: DataConfig, forget: ForgetConfig) -> ResolvedRows:
        key = rows_key(cfg, forget)
        if key not in self.resolved:
            data = repr(cfg)
            if data not in self.manifests:
                manifest = load_rows(cfg, draw=self.draw)
                read = content_reader(manifest, cfg, keep=self.draw)
                self.manifests[data] = manifest, assign_splits(manifest, cfg), read
            self.resolved[key] = _with_request(*self.manifests[data], cfg, forget, draw=self.draw)
        return self.resolved[key]


def resolve_data(cfg: DataConfig, forget: ForgetConfig) -> ResolvedData:
    """Resolve the rows and decode their images; a bad image is a DataError that names its row."""
    rows = resolve_rows(cfg, forget)
    return with_images(rows, open_images(rows.manifest, cfg), cfg)


def open_images(manifest: Manifest, cfg: DataConfig) -> np.ndarray | Images:
    """Return the images of a set; those of files are decoded once."""
    return open_cache(manifest, cfg) if manifest.images is None else manifest.images


def with_images(rows: ResolvedRows, images: np.ndarray | Images, cfg: DataConfig) -> ResolvedData:
    """Return resolved rows with their images, audited for leaks where data.leaks asks for it."""
    leaks = None
    if cfg.leaks and not rows.manifest.synthetic:
        # What data.clean leaves out is told too: the twin of such an image may stay in training.
        splits = rows.uncleaned or rows.splits
        leaks = audit_leaks(
            rows.manifest, splits, rows.request, make_cache_dir(cfg), verify=cfg.verify
        )
    return ResolvedData(
        rows.manifest, rows.splits, rows.request, images,
        removals=rows.removals, uncleaned=rows.uncleaned, contents=rows.contents, leaks=leaks,
    )  # fmt: skip


class DataReader:
    """Resolves rows and data, and reads each data set once.

    For a process whose runs share a data set: a file that changes meanwhile is not read again.
    """

    def __init__(self) -> None:
        self.rows = RowReader()
        self._images: dict[str, np.ndarray | Images] = {}
        self._last: tuple[ResolvedRows, ResolvedData] | None = None

    def data(self, cfg: DataConfig, forget: ForgetConfig) -> ResolvedData:
        rows = self.rows(cfg, forget)
        if self._last is None or self._last[0] is not rows:
            key = repr(cfg)
            if key not in self._images:
                self._images[key] = open_images(rows.manifest, cfg)
            self._last = rows, with_images(rows, self._images[key], cfg)
        return self._last[1]


class Batches:
    """Images and labels by sample id, normalised, on this rank's device.

    Parameters
    ----------
    data : the resolved data
    cfg : its configuration (normalisation, augmentation)
    dtype : of the images
    """

    def __init__(
        self,
        data: ResolvedData,
        cfg: DataConfig,
        *,
        collectives: Collectives,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ):
        self.data = data
        self.collectives = collectives
        self.device = collectives.device
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.labels = torch.from_numpy(data.manifest.labels)
        self.pixels = Pixels(cfg, data.manifest.images, dtype=dtype, device=self.device)
        self.ahead = Ahead(data.images, pinned=self.device.type == "cuda")
        self.transform = augmentation(cfg.augment, data.manifest.image_shape(cfg)[-1])
        self.groups = cfg.augment_groups

    @property
    def pixel_range(self) -> tuple[Tensor, Tensor]:
        """(1, channels, 1, 1) lowest and highest value of a real pixel as the model reads it."""
        return self.pixels.range

    def shard(
        self, ids: np.ndarray, *, augment_key: tuple[int, ...] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return this rank's images (n_local, channels, H, W) and labels of a global batch of ids.

        augment_key : integers naming the draw of augmentation parameters; None for no augmentation
        """
        rows = self.collectives.shard(len(ids))
        positions = np.arange(len(ids))[rows]
        images = self.pixels.read(self.ahead.take(ids[rows]))
        if augment_key is not None and self.transform is not None:
            images = augment_batch(
                images, torch.from_numpy(positions),
                transform=self.transform, groups=self.groups, key=augment_key,
            )  # fmt: skip
        normalised = self.pixels.normalise(images).contiguous(memory_format=self.memory_format)
        return normalised, self.labels[ids[rows]].to(self.device, non_blocking=True)

    def expect(self, *batches: np.ndarray) -> None:
        """Begin to read this rank's images of global batches to come."""
        self.ahead.expect(*(ids[self.collectives.shard(len(ids))] for ids in batches))

    def reading_ahead(
        self, steps: Iterable[T], ids_of: Callable[[T], Sequence[np.ndarray]]
    ) -> Iterator[T]:
        """Yield steps; the images of the next one are read while the caller works on this one.

        ids_of : returns the global batches of a step
        """
        coming = iter(steps)
        step = next(coming, None)
        while step is not None:
            after = next(coming, None)
            if after is not None:
                self.expect(*ids_of(after))
            yield step
            step = after

    def to_uint8(self, normalised: Tensor) -> Tensor:
        """Return images as the model reads them as uint8 pixels on the CPU."""
        return self.pixels.to_uint8(normalised)
