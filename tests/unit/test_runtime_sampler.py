"""The order of the samples over epochs and steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlfd_dist.runtime.sampler import EpochSampler


def sampler(n: int = 10, batch_size: int = 4, seed: int = 0, purpose: str = "order", **values):
    ids = 100 + np.arange(n)
    return EpochSampler(ids, batch_size=batch_size, seed=seed, purpose=purpose, **values)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), epoch=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_every_sample_comes_once_per_epoch(n, batch_size, epoch):
    order = sampler(n, batch_size)
    per_epoch = order.steps_per_epoch
    steps = list(order.steps(epoch * per_epoch, (epoch + 1) * per_epoch))
    assert sorted(np.concatenate([s.ids for s in steps])) == list(order.ids)
    assert {s.epoch for s in steps} == {epoch}
    assert all(len(s.ids) == batch_size for s in steps[:-1])
    assert len(steps[-1].ids) == (n - 1) % batch_size + 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_step_by_its_number_is_that_of_the_running_order(shuffle):
    order = sampler(shuffle=shuffle)
    for index, step in zip(range(2, 9), order.steps(2, 9), strict=True):
        alone = order.step(index)
        assert (step.index, step.epoch) == (alone.index, alone.epoch) == (index, index // 3)
        assert np.array_equal(step.ids, alone.ids)


def test_the_last_batch_of_an_epoch_is_smaller():
    assert [len(s.ids) for s in sampler().steps(0, 6)] == [4, 4, 2, 4, 4, 2]


def test_the_order_differs_by_epoch_seed_and_purpose():
    orders = [
        sampler(30).order(0),
        sampler(30).order(1),
        sampler(30, seed=1).order(0),
        sampler(30, purpose="forget").order(0),
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert np.array_equal(orders[0], sampler(30).order(0))


def test_without_shuffling_every_epoch_keeps_the_order_of_the_ids():
    ids = np.concatenate([s.ids for s in sampler(shuffle=False).steps(0, 6)])
    assert ids.tolist() == 2 * list(range(100, 110))
