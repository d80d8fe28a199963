"""Passes over a set: every sample once, in sizes that all ranks agree on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlfd_dist.jobs import passes as module
from dlfd_dist.jobs.passes import FIRST_PASS, LARGEST_PASS, pass_size, passes
from dlfd_dist.runtime.collectives import Collectives

GB = 10**9


@pytest.mark.parametrize(
    ("used", "free", "size"),
    [
        (GB, 0, 256),
        # 512 images take 2 GB, which must be half of what is free.
        (GB, 4 * GB - 1, 256),
        (GB, 4 * GB, 512),
        (GB, 8 * GB, 1024),
        (GB, 1000 * GB, 4096),
        (0, 0, 4096),
    ],
)
def test_a_pass_takes_at_most_half_of_the_free_memory(used, free, size):
    assert pass_size(used, free) == size


@given(used=st.integers(1, 10**12), free=st.integers(0, 10**12))
def test_a_pass_is_the_first_one_doubled_and_no_larger_than_it_may_be(used, free):
    times, rest = divmod(pass_size(used, free), FIRST_PASS)
    assert rest == 0
    assert times in (1, 2, 4, 8, 16)
    assert times == 1 or times * used <= free / 2
    if times * FIRST_PASS < LARGEST_PASS:
        assert 2 * times * used > free / 2


class Ranks(Collectives):
    """Two ranks of a GPU each, the other of which has room for `other` images."""

    def __init__(self, other: int):
        super().__init__(0, 2, torch.device("cuda", 0))
        self.other = other

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        return torch.maximum(tensor, torch.tensor([-self.other]))


def lengths(num: int, batch_size: int | None, collectives: Collectives) -> list[int]:
    """Return how many samples each pass has, after seeing that each sample is in one of them."""
    ids = np.arange(num)[::-1]
    parts = list(passes(ids, batch_size, collectives))
    assert np.array_equal(np.concatenate([*parts, ids[:0]]), ids)
    return [len(part) for part in parts]


@pytest.mark.parametrize(
    ("num", "batch_size", "expected"),
    [(0, None, []), (700, None, [256, 256, 188]), (7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2])],
)
def test_a_cpu_forwards_a_fixed_number(num, batch_size, expected):
    assert lengths(num, batch_size, Collectives()) == expected


@pytest.mark.parametrize(
    ("other", "expected"), [(4096, [512, 2048, 440]), (512, [512, 1024, 1024, 440])]
)
def test_a_gpu_forwards_what_fits_on_every_rank(other, expected, monkeypatch):
    monkeypatch.setattr(module, "_allocated", lambda _device: 3 * GB)
    monkeypatch.setattr(module, "_used_and_free", lambda _device, before: (before // 3, 10 * GB))
    real = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda values, device=None: real(values))
    assert lengths(3000, None, Ranks(other)) == expected
    assert lengths(3000, 1000, Ranks(other)) == [2000, 1000]


def test_memory_that_a_graph_holds_is_not_free(monkeypatch):
    def segment(device: int, total: int, allocated: int, pool: tuple[int, int]) -> dict:
        return {
            "device": device, "total_size": total * GB, "allocated_size": allocated * GB,
            "segment_pool_id": pool,
        }  # fmt: skip

    segments = [segment(0, 8, 5, (0, 0)), segment(0, 13, 1, (1, 0)), segment(1, 9, 0, (0, 0))]
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert module._cached(torch.device("cuda", 0)) == 3 * GB
