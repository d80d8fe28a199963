"""The device of a rank and the start of the process group."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.config import RuntimeConfig
from dlfd_dist.errors import CollectiveError, ConfigError
from dlfd_dist.runtime.env import RankInfo
from dlfd_dist.runtime.init import pick_device, process_group


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="runtime.device=cuda, but torch finds no CUDA"):
        pick_device(RuntimeConfig(device="cuda"), RankInfo())
    assert pick_device(RuntimeConfig(), RankInfo()) == torch.device("cpu")


def test_one_rank_needs_no_group():
    threads = torch.get_num_threads()
    try:
        with process_group(RuntimeConfig(device="cpu", threads_per_rank=1), RankInfo()) as group:
            assert (group.rank, group.world_size, group.is_main) == (0, 1, True)
            assert not torch.distributed.is_initialized()
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_a_rank_that_waits_in_vain_says_why(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    info = RankInfo(1, 1, 2, 2, 0, "torchrun")
    cfg = RuntimeConfig(device="cpu", threads_per_rank=1, init_timeout_s=1)
    with (
        pytest.raises(
            CollectiveError, match=r"Rank 1 could not join .* Common causes: MASTER_ADDR"
        ),
        process_group(cfg, info),
    ):
        pass
