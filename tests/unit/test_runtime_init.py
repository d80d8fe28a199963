"""The device of a rank and the start of the process group."""

from __future__ import annotations

import os

import pytest
import torch

from dlfd_dist.config import RuntimeConfig
from dlfd_dist.errors import CollectiveError, ConfigError
from dlfd_dist.runtime import init
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


def test_one_process_of_srun_says_at_once_that_it_waits_for_four(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr(init, "TOLD_AFTER_S", 0.1)
    monkeypatch.setattr(init.logger, "warning", lambda text, *words: messages.append(text % words))
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    cfg = RuntimeConfig(device="cpu", threads_per_rank=1, init_timeout_s=1)
    alone = "SLURM_NTASKS=4 says so; to run alone: env -u SLURM_STEP_ID dlfd"
    with (
        pytest.raises(CollectiveError, match=rf"a rank never started .{alone}"),
        process_group(cfg, RankInfo(0, 0, 4, 4, 0, "slurm")),
    ):
        pass
    assert len(messages) == 1
    assert messages[0].startswith("rank 0 waits at 127.0.0.1:")
    assert f"for the others of 4 ranks: {alone}" in messages[0]
