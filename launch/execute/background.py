"""cluster=local: submitit runs a campaign's jobs on this machine, in the background."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from dlfd_dist.errors import STOPPED

from ..children import child_environment, python_words
from ..plan.shape import LaunchSpec
from .places import job_folder
from .process import Process
from .task import output_to, redirect

LOCAL_JOB = "DLFD_LOCAL_JOB"
"""In the environment of a task: the id of the campaign's process."""
PRELOADED = [
    "dlfd_dist.__main__", "dlfd_dist.jobs.run", "torchvision.models",
    "sklearn.linear_model", "sklearn.model_selection",
]  # fmt: skip
"""Loaded once for all tasks, torch with them: each task is forked from a process that has them."""
DAYS = 30 * 24 * 60
"""Minutes that submitit allows the whole campaign."""


@dataclass(frozen=True)
class LocalCampaign:
    """Runs jobs one after another, parents first; children of a failed run refuse to begin."""

    campaign: Path
    jobs: tuple[tuple[str, int, LaunchSpec], ...]
    """Name, number of tasks and shape of each."""
    module: str
    """What does a task, by its `main` or as `python -m MODULE CAMPAIGN JOB INDEX`."""

    def __call__(self) -> int:
        worst, stop = 0, _Stop()
        # submitit passes TERM on to this process, and would have it ignored.
        signal.signal(signal.SIGTERM, stop)
        for name, num_tasks, spec in self.jobs:
            for index in range(num_tasks):
                if stop.requested:
                    return STOPPED
                log = f"{name}_{index}.out" if num_tasks > 1 else f"{name}.out"
                worst = max(worst, self._task(name, index, spec, log, stop))
        return worst

    def _task(self, name: str, index: int, spec: LaunchSpec, log: str, stop: _Stop) -> int:
        ranks = spec.ranks if spec.ranks_per_run > 1 else 1
        # The parent of this process is the one that `start` told of.
        environment = {LOCAL_JOB: _job_id(os.getppid())}
        words = [str(self.campaign), name, str(index)]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.module, *PRELOADED])
        output = self.campaign / "jobs" / log
        child = context.Process(
            target=_run_task, args=(self.module, words, ranks, output, environment)
        )
        child.start()
        stop.child = child
        if stop.requested:
            child.terminate()
        child.join()
        assert child.exitcode is not None
        return child.exitcode


def _run_task(
    module: str, words: list[str], ranks: int, log: Path, environment: dict[str, str]
) -> None:
    """Run a task in this process, or its ranks in processes of their own, with output in a log."""
    os.environ.update(environment)
    redirect(log)
    if ranks > 1:
        from .ranks import run_module

        sys.exit(run_module(module, ranks, words))
    sys.exit(importlib.import_module(module).main(words))


class _Stop:
    """Passes a signal on to what runs, which saves and ends; nothing is begun after it."""

    def __init__(self) -> None:
        self.requested = False
        self.child: BaseProcess | None = None

    def __call__(self, *_: object) -> None:
        self.requested = True
        if self.child is not None:
            self.child.terminate()


def _job_id(pid: int) -> str:
    return Process.of(pid).job_id


def start(campaign: Path, jobs: Sequence[tuple[str, int, LaunchSpec]], module: str) -> str:
    """Start the jobs, whose tasks a module does.

    Returns an id, from which `is_alive` tells whether they still run.
    """
    from submitit import LocalExecutor

    from .executor import make_job_folder

    # submitit puts these words before `-m submitit.core._submit` on a command line that it splits.
    python = shlex.join(python_words("")[:-2])
    os.environ.update(child_environment())
    folder = make_job_folder(job_folder(campaign))
    executor = LocalExecutor(folder=folder, python=python)
    executor.update_parameters(timeout_min=DAYS)
    # What goes on after this command must not hold its output: `dlfd submit ... | tail` would wait.
    with output_to(campaign / "jobs" / "local.out"):
        job = executor.submit(LocalCampaign(campaign, tuple(jobs), module))
    return _job_id(int(job.job_id))


def is_alive(campaign: Path, job_id: str) -> bool:
    """Return whether a campaign runs on this machine; of another machine's nobody can tell."""
    process = Process.read(job_id)
    return process is not None and process.runs(job_folder(campaign))


def cancel(campaign: Path, job_id: str) -> None:
    """Stop a campaign: what runs saves and ends, and nothing more is begun."""
    if process := Process.read(job_id):
        process.terminate(job_folder(campaign))
