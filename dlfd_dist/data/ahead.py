"""Images of the batch to come, read in a thread of its own while the device works."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .manifest import Images

MOST_COMING = 4
"""Batches that are kept until they are taken; of a run that was stopped one or two never are."""


class Ahead:
    """Reads rows of decoded images, those that were announced ahead of time.

    A file system of many nodes answers late, and a GPU would wait for it at every step. What reads
    the images of a data set of another library may expect one thread alone: of those nothing is
    read ahead.

    Parameters
    ----------
    pinned : whether rows go into memory that a GPU copies from while it works
    """

    def __init__(self, images: np.ndarray | Images, *, pinned: bool = False):
        self.images = images
        self.pinned = pinned
        self.coming: dict[bytes, Future[Tensor]] = {}
        self._thread = ThreadPoolExecutor(1) if isinstance(images, np.ndarray) else None

    def expect(self, *batches: np.ndarray) -> None:
        """Begin to read the rows of batches, one batch after another."""
        if self._thread is None:
            return
        for rows in batches:
            if len(rows) and rows.tobytes() not in self.coming:
                self.coming[rows.tobytes()] = self._thread.submit(self._read, rows)
        while len(self.coming) > MOST_COMING:
            del self.coming[next(iter(self.coming))]

    def take(self, rows: np.ndarray) -> Tensor:
        """Return the images of rows, (n, channels, H, W) as they are stored: read, or read now."""
        coming = self.coming.pop(rows.tobytes(), None)
        return self._read(rows) if coming is None else coming.result()

    def _read(self, rows: np.ndarray) -> Tensor:
        images = torch.as_tensor(self.images[rows])
        return images.pin_memory() if self.pinned else images
