"""Shards of a batch, and the collectives of a single rank."""

from __future__ import annotations

import time
import weakref

import numpy as np
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from dlfd_dist.runtime.collectives import Collectives, shard_counts, shard_slice


@given(total=st.integers(0, 200), world_size=st.integers(1, 17))
def test_shards_in_rank_order_are_the_whole_and_nearly_equal(total, world_size):
    rows = list(range(total))
    parts = [rows[shard_slice(total, rank, world_size)] for rank in range(world_size)]
    assert sum(parts, []) == rows
    sizes = [len(part) for part in parts]
    assert sizes == shard_counts(total, world_size)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_collectives_of_one_rank_are_copies_without_gradient():
    group, value = Collectives(), torch.ones(3, requires_grad=True)
    for answer in (
        group.all_reduce_sum(value),
        group.all_reduce_max(value),
        group.gather_rows(value, 3),
    ):
        assert torch.equal(answer, value.detach())
        assert not answer.requires_grad
    summed = group.all_reduce_sum(value)
    summed += 1
    assert torch.equal(value.detach(), torch.ones(3))
    assert group.gather_numpy(np.arange(3), 3).tolist() == [0, 1, 2]
    assert group.shard(5) == slice(0, 5)


def test_tensors_of_a_collective_that_is_done_are_not_left_to_a_thread_of_gloo():
    """One that freed them while the process ended would abort it: status 134 in place of 75."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        total = weakref.ref(Collectives(0, 2).all_reduce_sum(torch.ones(3)))
        time.sleep(0.2)  # by then its thread has let go of it
        assert total() is not None
    finally:
        dist.destroy_process_group()
