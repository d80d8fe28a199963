"""A plan carried out on this machine: finished runs are reused, the others are done."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlfd_dist.compose import config_text
from dlfd_dist.config import JobConfig, signed_settings
from dlfd_dist.data.loaders import ResolvedRows, RowReader
from dlfd_dist.errors import FAILED, STOPPED, DlfdError, Stopped
from dlfd_dist.jobs.context import input_digests, record_files, run_identity
from dlfd_dist.progress import Bar, duration
from dlfd_dist.run_dir import RunDir, exclusively, take_directory, write_text, writing_to
from dlfd_dist.runtime.env import RankInfo
from dlfd_dist.runtime.init import pick_device
from dlfd_dist.runtime.preemption import StopFlag, stop_flag
from dlfd_dist.trackers.page import end_trackers

from ..plan.runs import Plan, Run
from .causes import cause
from .ranks import cores, run_local
from .workers import Task, Workers

logger = logging.getLogger("dlfd_dist.compare")

FIGURES = {"nomus": "NoMUS", "test_accuracy": "test", "forgetting_score": "forgetting"}
STOPPED_RUNS = "It was stopped as asked; the same command goes on from there."
TRIAL_FIGURES = {"nomus": "validation NoMUS", "accuracy": "val", "forgetting_score": "forgetting"}

Ready = Callable[[Run, Mapping[str, Path]], "Run | None"]
"""Gives a run what the runs before it left, whose directories it gets by label; None where that is
missing."""


class NothingFinished(DlfdError):
    """No model was trained, so that nothing else can run."""

    exit_status = FAILED

    def __init__(self, failures: Mapping[str, str]):
        label, why = next(iter(failures.items()), ("", "the messages above say why."))
        super().__init__(f"No model was trained, so nothing else can run. {label}: {why}")


def num_workers(config: JobConfig, wanted: int | None) -> int:
    """Return the number wanted, else one per core; runs on a GPU do not share it unasked."""
    on_gpu = pick_device(config.runtime, RankInfo()).type == "cuda"
    return wanted or (1 if on_gpu else cores())


class Progress:
    """One line for every run that ends, and a bar below them on a terminal."""

    def __init__(self, total: int):
        self.bar = Bar("runs", total, unit="run")
        self._width = 0

    def close(self) -> None:
        self.bar.close()

    def reused(self, number: int) -> None:
        """Count runs that were finished before this start."""
        if number:
            self.bar.skip(number)
            logger.info("%d/%d: %d finished before", self.bar.num_done, self.bar.total, number)

    def done(self, label: str, figures: str) -> None:
        # On a terminal the rows of the table stand below each other as they come.
        self._width = max(self._width, len(label)) if self.bar.drawn is not None else 0
        self._tell(logging.INFO, f"{label + ':':{self._width + 1}} {figures}")

    def failed(self, label: str, why: str) -> None:
        self._tell(logging.WARNING, f"{label} failed: {why}")

    def _tell(self, level: int, what: str) -> None:
        self.bar.move_to(self.bar.num_done + 1)
        bar = self.bar
        logger.log(level, "%d/%d eta=%s %s", bar.num_done, bar.total, bar.eta, what)


@dataclass(frozen=True)
class _Placed:
    """A run, what goes into it, its signature and its directory."""

    run: Run
    inputs: dict[str, str]
    signature: str
    run_dir: RunDir

    def claim(self) -> None:
        config = self.run.config
        self.run_dir.claim(self.signature, self.inputs, config_text(config))
        record_files(self.run_dir, config)

    def task(self) -> Task:
        return Task(self.run.label, self.run_dir.config, self.run_dir.logs / "console.log")

    def figures(self) -> str:
        """Return the key figures of the finished run; those of a trial are on val alone."""
        result = self.run_dir.read_result()
        is_trial = self.run.role == "trial"
        values, names = (result["validation"], TRIAL_FIGURES) if is_trial else (result, FIGURES)
        known = [f"{names[key]} {values[key]:.3f}" for key in names if values[key] is not None]
        return ", ".join([*known, duration(result["wall_seconds"])])


@dataclass
class Runs:
    """Carries out a plan.

    Attributes
    ----------
    read : the rows of every data set and draw
    failures : why a run failed and where its log is, by its label
    """

    plan: Plan
    read: RowReader
    workers: Workers
    progress: Progress
    stop: StopFlag
    failures: dict[str, str] = field(default_factory=dict)

    def rows(self, config: JobConfig) -> ResolvedRows:
        return self.read(config.data, config.drawn_forget)

    def carry_out(self, ready: Ready) -> dict[str, Path]:
        """Run stage after stage; return the directories of the finished runs, by label.

        Raises NothingFinished where no run of the first stage succeeds.
        """
        done: dict[str, Path] = {}
        for stage in self.plan.stages:
            begun = [ready(run, done) for run in stage]
            done |= self._run([run for run in begun if run is not None])
            if not done:
                raise NothingFinished(self.failures)
        return done

    def _run(self, stage: Sequence[Run]) -> dict[str, Path]:
        """Run what is not finished; return the directories of what is, by label."""
        placed = [self._place(run, len(stage)) for run in stage]
        pending = []
        for place in placed:
            if place.run_dir.finished():
                end_trackers(place.run.config, place.run_dir)
            else:
                pending.append(place)
        self.progress.reused(len(placed) - len(pending))
        if pending and pending[0].run.config.runtime.world_size > 1:
            self._run_on_ranks(pending)
        elif pending:
            self._run_on_workers(pending)
        if self.stop.requested:
            raise Stopped(STOPPED_RUNS)
        return {p.run.label: p.run_dir.path for p in placed if p.run_dir.finished()}

    def _place(self, run: Run, num_runs: int) -> _Placed:
        """Find the directory of a run; RunDirError if it holds something else."""
        if self.stop.requested:
            raise Stopped(STOPPED_RUNS)
        runtime = run.config.runtime
        if runtime.world_size == 1 and runtime.threads_per_rank is None:
            # Counted from all runs of the stage, so that a second start computes as the first did.
            threads = max(1, cores() // min(self.workers.num, num_runs))
            runtime = replace(runtime, threads_per_rank=threads)
            run = run.with_config(replace(run.config, runtime=runtime))
        inputs = input_digests(run.config, self.rows(run.config))
        signature, run_dir = run_identity(run.config, inputs)
        run_dir.check(signature, inputs, signed_settings(run.config))
        return _Placed(run, inputs, signature, run_dir)

    def _run_on_workers(self, pending: Sequence[_Placed]) -> None:
        by_label = {place.run.label: place for place in pending}
        for task, status in self.workers.run(self._tasks(pending), self.stop):
            if status in (STOPPED, -signal.SIGTERM):
                # The worker itself was told to stop, as batch systems do.
                self.stop.requested = True
            elif status:
                why = f"{self._reason(status, task.log)} Its log: {task.log}"
                self.failures[task.label] = why
                self.progress.failed(task.label, why)
            else:
                self.progress.done(task.label, by_label[task.label].figures())

    def _reason(self, status: int, log: Path) -> str:
        """Return why a run failed, in one sentence."""
        if status == -signal.SIGKILL:
            smaller = f"give a smaller {self.plan.verb}.workers"
            return f"its process was killed: if memory ran out, {smaller}."
        by_signal = f"0:{-status}" if status < 0 else ""
        return cause("", by_signal, status if status > 0 else None, [log])[0]

    def _tasks(self, pending: Sequence[_Placed]) -> Iterator[Task]:
        for place in pending:
            place.claim()
            yield place.task()

    def _run_on_ranks(self, pending: Sequence[_Placed]) -> None:
        """Run one after another, each on its ranks, which write to our console.

        Ranks that a run ends are started again for the runs after it.
        """
        for place in pending:
            place.claim()
        in_vain = False
        while pending and not self.stop.requested:
            before = [_logged(place.run_dir) for place in pending]
            status = run_local(
                [place.run.config for place in pending], [place.run_dir.config for place in pending]
            )
            self.stop.requested |= status == STOPPED
            begun = [_logged(p.run_dir) > size for p, size in zip(pending, before, strict=True)]
            num_begun = 1 + max((number for number, has in enumerate(begun) if has), default=0)
            in_vain, was_in_vain = not any(begun), in_vain
            if in_vain and was_in_vain:
                num_begun = len(pending)  # whatever it is, it is not the first of them
            for place in pending[:num_begun]:
                self._tell(place)
            pending = pending[num_begun:]

    def _tell(self, place: _Placed) -> None:
        if place.run_dir.finished():
            self.progress.done(place.run.label, place.figures())
        elif not self.stop.requested:
            why = "it did not finish: the messages above say why."
            self.failures[place.run.label] = why
            self.progress.failed(place.run.label, why)


def _logged(run_dir: RunDir) -> int:
    """Return the bytes that the first rank has logged of a run, which it does from the start."""
    log = run_dir.rank_log(0)
    return log.stat().st_size if log.is_file() else 0


@contextlib.contextmanager
def running(
    plan: Plan, what: str, request: JobConfig, read: RowReader, workers: int | None
) -> Iterator[Runs]:
    """Yield what carries out a plan, in its directory and with workers.

    Raises RunDirError where the directory is of something else, or another command works in it.

    Parameters
    ----------
    what : what the directory is, such as "a comparison"
    request : the settings that are written into the directory
    workers : how many runs may be done at once; None: as many as there are cores
    """
    out = plan.path
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_flag())
        # Ctrl-C sets the flag as well.
        before = signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
        stack.callback(signal.signal, signal.SIGINT, before)
        take_directory(out, what, "runs")
        with writing_to(out):
            (out / "runs").mkdir(exist_ok=True)
            stack.enter_context(exclusively(out / f"{plan.verb}.lock", f"dlfd {plan.verb}"))
            write_text(out / "config.yaml", config_text(request))
        processes = stack.enter_context(Workers(num_workers(request, workers)))
        progress = stack.enter_context(contextlib.closing(Progress(len(plan.runs))))
        yield Runs(plan, read, processes, progress, stop)
