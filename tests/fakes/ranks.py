"""Functions on several real ranks, each in a process that stays up for the next function."""

from __future__ import annotations

import contextlib
import io
import multiprocessing as mp
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from dlfd_dist.config import RuntimeConfig
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.env import rank_info
from dlfd_dist.runtime.init import process_group
from tests.fakes.preloaded import PRELOADED


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

    They are forked from a server that has torch loaded and no threads. A function that fails on a
    rank ends all ranks, whatever state they are in; the next function gets new ranks.
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
        for rank, orders in enumerate(self.orders):
            try:
                orders.send((function, args))
            except BrokenPipeError:
                self.kill()
                raise AssertionError(f"rank {rank} ended between two functions") from None
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
        context, port = mp.get_context("forkserver"), _free_port()
        context.set_forkserver_preload(PRELOADED)
        for rank in range(self.world_size):
            ours, theirs = context.Pipe()
            args = (rank, self.world_size, port, self.device, theirs)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.orders.append(ours)

    def _answers(self, end: float) -> list[bytes] | str:
        """Return the results of all ranks in order, or what went wrong."""
        answers: dict[int, bytes] = {}
        while len(answers) < self.world_size:
            waiting = {self.orders[r]: r for r in range(self.world_size) if r not in answers}
            ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                return f"ranks {list(waiting.values())} took too long"
            for orders in ready:
                rank = waiting[orders]  # type: ignore[index]
                answer = self._answer(rank)
                if isinstance(answer, str):
                    return "\n".join([answer, *self._further_failures(rank)])
                answers[rank] = answer
        return [answers[rank] for rank in range(self.world_size)]

    def _answer(self, rank: int) -> bytes | str:
        try:
            answer = self.orders[rank].recv()
        except (EOFError, ConnectionResetError):
            return f"rank {rank} ended without an answer"
        return f"rank {rank}: {answer}" if isinstance(answer, str) else answer

    def _further_failures(self, failed: int) -> list[str]:
        """Return what went wrong on other ranks: the first to tell need not be the cause."""
        others = [rank for rank in range(self.world_size) if rank != failed]
        answers = [self._answer(rank) for rank in others if self.orders[rank].poll(0.2)]
        return [answer for answer in answers if isinstance(answer, str)]
