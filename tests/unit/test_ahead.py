"""data/ahead.py: what is read ahead is what would have been read, and by whom it is read."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dlfd_dist.config import DataConfig
from dlfd_dist.data.ahead import MOST_COMING, Ahead
from dlfd_dist.data.loaders import Batches
from dlfd_dist.runtime.collectives import Collectives

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
STEPS = [np.arange(start, start + 4) for start in range(0, 20, 4)]


class Watched(np.ndarray):
    """Decoded images that note which thread reads which rows."""

    reads: list[tuple[bool, list[int]]]

    def __getitem__(self, rows: Any) -> Any:
        is_main = threading.current_thread() is threading.main_thread()
        self.reads.append((is_main, rows.tolist()))
        return np.asarray(self)[rows]


def watched() -> Watched:
    images = IMAGES.view(Watched)
    images.reads = []
    return images


def batches(images: Any) -> Batches:
    manifest = SimpleNamespace(
        labels=np.arange(20), images=None, image_shape=lambda _: IMAGES.shape[1:]
    )
    data: Any = SimpleNamespace(manifest=manifest, images=images)
    return Batches(data, DataConfig(augment="none"), collectives=Collectives())


def test_the_batch_of_the_next_step_is_read_while_this_one_is_worked_on():
    images = watched()
    found, plain = batches(images), batches(IMAGES)
    for number, ids in enumerate(found.reading_ahead(STEPS, lambda ids: (ids,))):
        own, labels = found.shard(ids)
        torch.testing.assert_close(own, plain.shard(ids)[0], rtol=0, atol=0)
        assert labels.tolist() == ids.tolist()
        for coming in found.ahead.coming.values():
            coming.result()
        # Of the step, and of the one behind it: nothing is read twice.
        read = [rows for _, rows in sorted(images.reads, key=lambda one: one[1])]
        assert read == [ids.tolist() for ids in STEPS[: number + 2]]
    assert [is_main for is_main, _ in images.reads].count(True) == 1
    assert not found.ahead.coming


def test_images_of_another_library_are_read_by_the_thread_that_asks():
    class Foreign:
        reads: list[bool] = []  # noqa: RUF012 - of this test alone

        def __getitem__(self, rows: np.ndarray) -> torch.Tensor:
            self.reads.append(threading.current_thread() is threading.main_thread())
            return torch.from_numpy(IMAGES[rows])

    ahead = Ahead(Foreign())  # type: ignore[arg-type]
    ahead.expect(STEPS[1])
    assert ahead.take(STEPS[0]).equal(torch.from_numpy(IMAGES[:4]))
    assert ahead.take(STEPS[1]).equal(torch.from_numpy(IMAGES[4:8]))
    assert Foreign.reads == [True, True]


def test_what_is_never_taken_is_not_kept_for_ever():
    ahead = Ahead(IMAGES)
    ahead.expect(*STEPS, np.arange(0))
    assert len(ahead.coming) == MOST_COMING
    assert ahead.take(STEPS[-1]).equal(torch.from_numpy(IMAGES[-4:]))


def test_an_error_of_the_reading_thread_reaches_the_one_that_asks():
    ahead = Ahead(IMAGES)
    ahead.expect(np.array([20]))
    with pytest.raises(IndexError):
        ahead.take(np.array([20]))
