"""Processes that stay for a whole comparison and take its runs one by one (launch/worker.py).

A worker hears from us through its standard input and ends when that is closed, so none is left
behind when this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from dlfd_dist.runtime.preemption import StopFlag

from ..children import child_environment, python_words
from .ranks import rank_environment

POLL_S = 0.5
"""How long a request to stop may go unnoticed while no run ends."""


@dataclass(frozen=True)
class Task:
    """A run for a worker: its configuration file, and the file its output goes to."""

    label: str
    config: Path
    log: Path


class _Worker:
    """One process and the task it is at."""

    def __init__(self, environment: dict[str, str]):
        self.task: Task | None = None
        self.process = subprocess.Popen(
            python_words("launch.execute.worker"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=child_environment(environment), text=True,
        )  # fmt: skip

    @property
    def replies(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def start(self, task: Task) -> None:
        assert self.process.stdin is not None
        self.task = task
        # A process that has died in the meantime is noticed where its replies end.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([str(task.config), str(task.log)]) + "\n")
            self.process.stdin.flush()

    def collect(self) -> int | None:
        """Return the exit status of the task, None if the process has ended."""
        reply = self.replies.readline()
        self.task = None
        return int(reply) if reply else None

    def end(self) -> int:
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        self.replies.close()
        return self.process.wait()


class Workers:
    """At most `num` processes, started when there is work for them."""

    def __init__(self, num: int):
        self.num = num
        self.environment = {**os.environ, **rank_environment(num, os.environ)}
        self.selector = selectors.DefaultSelector()
        self.workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        """End every worker, in the middle of a run too."""
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        self.selector.close()

    def run(self, tasks: Iterator[Task], stop: StopFlag) -> Iterator[tuple[Task, int]]:
        """Yield each task with its exit status when it ends, below zero for a signal.

        Once a stop is requested no task is started, and those under way are told to save and end.
        """
        is_signalled = False
        self._hand_out(tasks)
        while any(worker.task for worker in self.workers):
            for ready, _ in self.selector.select(POLL_S):
                yield from self._collect(ready.data)
            if not stop.requested:
                self._hand_out(tasks)
            elif not is_signalled:
                is_signalled = True
                self._signal(signal.SIGTERM)

    def _hand_out(self, tasks: Iterator[Task]) -> None:
        """Give a task to every worker that has none, and to new ones up to the number allowed."""
        idle = [worker for worker in self.workers if worker.task is None]
        for place in range(len(idle) + self.num - len(self.workers)):
            task = next(tasks, None)
            if task is None:
                return
            worker = idle[place] if place < len(idle) else self._new()
            worker.start(task)

    def _new(self) -> _Worker:
        worker = _Worker(self.environment)
        self.workers.append(worker)
        self.selector.register(worker.replies, selectors.EVENT_READ, worker)
        return worker

    def _collect(self, worker: _Worker) -> Iterator[tuple[Task, int]]:
        task, status = worker.task, worker.collect()
        if status is None:
            self.selector.unregister(worker.replies)
            self.workers.remove(worker)
            status = worker.end()
        if task is not None:
            yield task, status

    def _signal(self, number: signal.Signals) -> None:
        for worker in self.workers:
            if worker.task is not None:
                worker.process.send_signal(number)
