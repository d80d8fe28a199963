"""Images of a forward pass without gradient: a fixed number, or what the memory of a GPU holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..runtime.collectives import Collectives

FIRST_PASS, LARGEST_PASS = 256, 4096
"""Images of a rank where metrics.eval_batch_size is null: in the first pass, and at most."""


def pass_size(used: int, free: int) -> int:
    """Return the images of a pass: FIRST_PASS doubled while half of the free memory holds them.

    Doubled, so that passes are the same while free memory is about the same.

    Parameters
    ----------
    used : bytes that a pass of FIRST_PASS images took at its peak, or more
    free : bytes that nothing holds, between two passes

    >>> pass_size(used=10**9, free=10 * 10**9)
    1024
    """
    size = FIRST_PASS
    while size < LARGEST_PASS and 2 * (2 * size // FIRST_PASS) * used <= free:
        size *= 2
    return size


def passes(
    ids: np.ndarray, batch_size: int | None, collectives: Collectives
) -> Iterator[np.ndarray]:
    """Yield the samples of each pass of all ranks, in order; every rank yields the same.

    Parameters
    ----------
    batch_size : images of a rank; None: FIRST_PASS, and on CUDA pass_size after the first pass
    """
    may_grow = batch_size is None and collectives.device.type == "cuda"
    before = _allocated(collectives.device) if may_grow else 0
    first = (batch_size or FIRST_PASS) * collectives.world_size
    if len(ids):
        yield ids[:first]
    rest, later = ids[first:], first
    if may_grow and len(rest):
        used, free = _used_and_free(collectives.device, before)
        later = _least(pass_size(used, free), collectives) * collectives.world_size
    for start in range(0, len(rest), later):
        yield rest[start : start + later]


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device)


def _used_and_free(device: torch.device, before: int) -> tuple[int, int]:
    """Return what the first pass took at most, and what is free for the next one."""
    # The peak is not reset, as a run reports it: an earlier one makes passes smaller, not larger.
    used = torch.cuda.max_memory_allocated(device) - before
    return used, torch.cuda.mem_get_info(device)[0] + _cached(device)


def _cached(device: torch.device) -> int:
    """Return the bytes that the allocator holds and anything may use: not those of CUDA graphs."""
    if torch.cuda.get_allocator_backend() != "native":
        return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == index and tuple(segment["segment_pool_id"]) == (0, 0)
    )


def _least(size: int, collectives: Collectives) -> int:
    return -int(collectives.all_reduce_max(torch.tensor([-size], device=collectives.device)))
