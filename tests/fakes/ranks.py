"""Run a function on several real gloo ranks, each in a process of its own."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _rank(
    function: Callable[..., Any], rank: int, world_size: int, port: int, out: Path, args: tuple
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    from dlfd_dist.config import RuntimeConfig
    from dlfd_dist.runtime.env import rank_info
    from dlfd_dist.runtime.init import process_group

    torch.set_num_threads(1)
    try:
        with process_group(RuntimeConfig(device="cpu", threads_per_rank=1), rank_info()) as group:
            result = function(group, *args)
        torch.save(result, out / f"rank_{rank}.pt")
    except BaseException:
        (out / f"rank_{rank}.err").write_text(traceback.format_exc())
        raise


def run_on_ranks(function: Callable[..., Any], world_size: int, out: Path, *args: Any) -> list[Any]:
    """Return function(collectives, *args) of every rank; fail with the first rank's traceback."""
    folder = out / f"ranks_{world_size}_{function.__name__}_{len(list(out.iterdir()))}"
    folder.mkdir()
    context, port = mp.get_context("spawn"), _free_port()
    processes = [
        context.Process(target=_rank, args=(function, rank, world_size, port, folder, args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        if process.is_alive():
            process.kill()
    errors = sorted(folder.glob("rank_*.err"))
    assert not errors, errors[0].read_text()
    return [torch.load(folder / f"rank_{r}.pt", weights_only=False) for r in range(world_size)]
