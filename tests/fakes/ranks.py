"""Run a function on several real ranks, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing as mp
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from dlfd_dist.config import RuntimeConfig
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.env import rank_info
from dlfd_dist.runtime.init import process_group


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def _group(rank: int, world_size: int, port: int, device: str = "cpu") -> Iterator[Collectives]:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.set_num_threads(1)
    with process_group(RuntimeConfig(device=device, threads_per_rank=1), rank_info()) as group:
        yield group


def _rank(
    function: Callable[..., Any], rank: int, world_size: int, port: int, out: Path, args: tuple
) -> None:
    try:
        with _group(rank, world_size, port) as group:
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


def _serve(rank: int, world_size: int, port: int, device: str, orders: Connection) -> None:
    with _group(rank, world_size, port, device) as group:
        while True:
            function, args = orders.recv()
            buffer = io.BytesIO()
            try:
                torch.save(function(group, *args), buffer)
            except BaseException:
                orders.send(traceback.format_exc())
                raise
            orders.send(buffer.getvalue())


class StandingRanks:
    """Ranks that stay up between functions: starting them costs more than most functions do.

    A function that fails on a rank ends them all; the next one gets new ranks.
    """

    def __init__(self, world_size: int, device: str = "cpu"):
        self.world_size = world_size
        self.device = device
        self.processes: list[BaseProcess] = []
        self.orders: list[Connection] = []

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float = 240) -> list[Any]:
        """Return function(collectives, *args) of every rank."""
        if not self.processes:
            self._start()
        for orders in self.orders:
            orders.send((function, args))
        answers = self._answers(time.monotonic() + timeout_s)
        if isinstance(answers, str):
            self.kill()
            raise AssertionError(answers)
        return [torch.load(io.BytesIO(answer), weights_only=False) for answer in answers]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.processes, self.orders = [], []

    def _start(self) -> None:
        context, port = mp.get_context("spawn"), _free_port()
        for rank in range(self.world_size):
            ours, theirs = context.Pipe()
            args = (rank, self.world_size, port, self.device, theirs)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.orders.append(ours)

    def _answers(self, end: float) -> list[bytes] | str:
        """Return the results of all ranks in order, or what went wrong on the first that failed."""
        answers: dict[int, bytes] = {}
        while len(answers) < self.world_size:
            if time.monotonic() > end:
                return "the ranks took too long"
            for rank, orders in enumerate(self.orders):
                if rank in answers or not orders.poll(0.01):
                    continue
                try:
                    answer = orders.recv()
                except EOFError:
                    return f"rank {rank} ended without an answer"
                if isinstance(answer, str):
                    return answer
                answers[rank] = answer
        return [answers[rank] for rank in range(self.world_size)]
