"""runtime/collectives.py: what a gather over several ranks gives, with the other ranks known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from dlfd_dist.runtime.collectives import Collectives, shard_slice


@pytest.mark.parametrize(("total", "world_size"), [(7, 3), (6, 3), (2, 4), (1, 2), (0, 2)])
def test_a_gather_gives_every_row_once_and_in_the_order_of_the_ranks(
    total: int, world_size: int, monkeypatch: pytest.MonkeyPatch
):
    """all_gather is given here what the ranks would send: each its shard, padded to the largest."""
    rows = torch.arange(2 * total, dtype=torch.float64).reshape(total, 2)
    sent: list[torch.Tensor] = []

    def send(parts, padded, *, async_op):
        """First every rank's rows are collected, then all of them are handed out."""
        sent.append(padded.clone())
        for part, known in zip(parts, sent, strict=False):
            part.copy_(known)
        assert async_op
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(dist, "all_gather", send)
    for rank in range(world_size):
        own = rows[shard_slice(total, rank, world_size)]
        gathered = Collectives(rank, world_size).gather_rows(own.requires_grad_(False), total)
    assert len({part.shape for part in sent}) == 1
    assert torch.equal(gathered, rows)
