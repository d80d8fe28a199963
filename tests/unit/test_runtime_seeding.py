"""Keys of samples, shuffling and seeds by purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlfd_dist.runtime.seeding import derive_seed, purpose_key, sample_keys, shuffled, torch_seed

IDS = st.lists(st.integers(0, 2**40), unique=True, min_size=1, max_size=40).map(np.array)


@given(ids=IDS, keep=st.integers(1, 40), seed=st.integers(0, 100))
@settings(deadline=None)
def test_a_samples_key_does_not_depend_on_the_others(ids, keep, seed):
    keys = sample_keys(ids, seed, 3)
    assert np.array_equal(sample_keys(ids[:keep], seed, 3), keys[:keep])
    assert np.array_equal(sample_keys(ids[::-1], seed, 3), keys[::-1])


@given(ids=IDS, seed=st.integers(0, 100))
@settings(deadline=None)
def test_shuffled_is_a_permutation_that_keeps_its_order_when_samples_leave(ids, seed):
    order = shuffled(ids, seed)
    assert sorted(order) == sorted(ids)
    fewer = shuffled(ids[: len(ids) // 2 + 1], seed)
    assert [i for i in order if i in set(fewer)] == fewer.tolist()


def test_keys_of_many_samples_are_distinct_and_uniform():
    keys = sample_keys(np.arange(20_000), 0)
    assert len(np.unique(keys)) == 20_000
    counts, _ = np.histogram(keys / 2.0**64, bins=20, range=(0, 1))
    # Chi-squared of 20 bins has mean 19; 43.8 is its 99.9 % quantile.
    assert (((counts - 1000) ** 2) / 1000).sum() < 43.8


def test_places_after_shuffling_are_uniform_over_seeds():
    places = np.array([np.argmax(shuffled(np.arange(10), s) == 0) for s in range(2000)])
    counts = np.bincount(places, minlength=10)
    # Chi-squared of 10 bins has mean 9; 27.9 is its 99.9 % quantile.
    assert (((counts - 200) ** 2) / 200).sum() < 27.9


def test_seeds_differ_by_every_part_of_the_key_and_its_order():
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**40,), (0, purpose_key("dropout"))]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, 4) == derive_seed(3, 4)


def test_torch_seed_draws_the_same_inside_and_nothing_outside():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    draws = []
    for _ in range(2):
        with torch_seed(7):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(4), expected)
    assert not torch.equal(draws[0], expected)


def test_torch_seed_restores_after_an_error():
    def draw_and_fail() -> None:
        with torch_seed(7):
            torch.rand(4)
            raise RuntimeError("inside")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)
