"""Randomness as a function of (seed, purpose, epoch, sample id): never of rank or world size.

Nothing here keeps state, so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
import torch

_GOLDEN, _MIX1, _MIX2 = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)


def purpose_key(purpose: str) -> int:
    """Return a number for a purpose ("retain order", "dropout"), so that streams differ."""
    return zlib.crc32(purpose.encode())


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed from integers.

    Source: numpy's SeedSequence, whose streams are independent for different keys; it pads with
    zeros, so the length comes first.
    """
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def sample_keys(ids: np.ndarray, *key: int) -> np.ndarray:
    """Return one random uint64 per sample id (splitmix64 of the id, keyed).

    A sample's key does not depend on which other samples are there.
    """
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64) * _GOLDEN + np.uint64(derive_seed(*key))
        x = (x ^ (x >> np.uint64(30))) * _MIX1
        x = (x ^ (x >> np.uint64(27))) * _MIX2
        return x ^ (x >> np.uint64(31))


def shuffled(ids: np.ndarray, *key: int) -> np.ndarray:
    """Return the ids in the order of their keys."""
    return ids[np.argsort(sample_keys(ids, *key), kind="stable")]


@contextlib.contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block and restore it after; CUDA's is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
