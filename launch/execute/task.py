"""What a job does on each of its ranks: a callable that submitit pickles and calls.

A `Task` is one run. It needs no campaign and no `dlfd` command:

    executor = submitit.AutoExecutor(folder="jobs", cluster="slurm")
    executor.update_parameters(nodes=2, tasks_per_node=1, timeout_min=60)
    job = executor.submit(Task("unlearn", ("checkpoint=runs/original", "run.dir=runs/unlearned")))
    job.results()[0]["test_accuracy"]
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlfd_dist.errors import FAILED, LOST, STOPPED

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from dlfd_dist.config import JobConfig
    from dlfd_dist.data.loaders import DataReader
    from dlfd_dist.jobs import Prepared
    from dlfd_dist.run_dir import RunDir

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
MAX_RESTARTS = "DLFD_MAX_RESTARTS"
"""Our batch scripts set it, and slurm/lib/requeue.sh obeys it."""


class TaskFailed(Exception, SystemExit):
    """A run failed: submitit writes this exception down as the result, and the process ends with
    the exit status of the run."""

    def __init__(self, status: int):
        super().__init__(f"exit status {status}; the log of the job says why")
        self.code = status


@dataclass(frozen=True)
class JobTask(abc.ABC):
    """A callable for submitit, called once on each rank.

    Rank 0 returns the result of the run, a dict of plain values, with its directory `run_dir`; the
    other ranks return their number. A task of several runs returns their results under `runs`.

    A run that was asked to stop saves and ends the process with 75, a run that lost ranks with 76.
    Our batch script then requeues the job.
    """

    @abc.abstractmethod
    def work(self) -> tuple[int, dict[str, Any]]:
        """Do the work of this rank; return the exit status and, with status 0, the result."""

    def __call__(self) -> dict[str, Any]:
        from dlfd_dist.plain import visible_output

        by_submitit = signal.getsignal(signal.SIGUSR2)
        meet()
        # submitit itself requeues a lone rank of a user's own executor that has nothing to save.
        if MAX_RESTARTS in os.environ or _num_ranks() > 1:
            mind_early_signals()
        remove_unfinished_files()
        with visible_output():
            status, result = self.work()
        be_deaf()
        if status == STOPPED and MAX_RESTARTS not in os.environ:
            _requeue(by_submitit)
        if status in (STOPPED, LOST) and not is_last_start():
            sys.exit(status)
        if status:
            raise TaskFailed(final_status(status))
        return result

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit calls after a restart: the same again. Progress is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(dataclasses.replace(self))


@dataclass(frozen=True)
class Task(JobTask):
    """One run of train, unlearn or evaluate, on as many ranks as the job has tasks."""

    verb: str
    words: tuple[str, ...] = ()
    """Settings, as after `dlfd VERB`."""

    def work(self) -> tuple[int, dict[str, Any]]:
        from dlfd_dist.__main__ import run_ranks
        from dlfd_dist.compose import compose_job
        from dlfd_dist.data.loaders import DataReader
        from dlfd_dist.errors import DlfdError
        from dlfd_dist.jobs import prepare
        from dlfd_dist.runtime.env import rank_info

        reader, places = DataReader(), []

        def ready(config: JobConfig, world_size: int) -> Prepared:
            prepared = prepare(config, world_size, reader=reader)
            places.append(prepared.run_dir)
            return prepared

        try:
            status = run_ranks([compose_job(self.verb, list(self.words))], ready)
        except DlfdError as err:
            print(f"dlfd: {err}", file=sys.stderr)
            return err.exit_status, {}
        info = rank_info()
        if status or not info.is_main:
            return status, {"rank": info.rank}
        return status, result_of(places[0])


def result_of(run_dir: RunDir) -> dict[str, Any]:
    """Return the result of a finished run, with its directory."""
    return {**run_dir.read_result(), "run_dir": str(run_dir.path)}


# --- the start of a rank


def meet() -> None:
    """Say where the ranks meet, where neither a batch script of ours nor torchrun has."""
    if "MASTER_ADDR" in os.environ or "SUBMITIT_EXECUTOR" not in os.environ:
        return
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    job = JobEnvironment()
    if job.num_tasks == 1:
        return
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    # As slurm/lib/rendezvous.sh does.
    port = str(20000 + (int(job.raw_job_id) * 31 + restarts * 7) % 12000)
    os.environ["MASTER_PORT"] = port
    if job.cluster == "slurm":
        os.environ["MASTER_ADDR"] = job.hostnames[0]
    else:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def mind_early_signals() -> None:
    """Decide what a signal does before the loop listens, when there is nothing to save yet."""
    from dlfd_dist.runtime.preemption import note_early_stops

    if _num_ranks() == 1:
        leave_when_asked()
    else:
        note_early_stops()


def _num_ranks() -> int:
    names = ("SLURM_NTASKS", "SUBMITIT_LOCAL_NTASKS")
    return int(next((os.environ[name] for name in names if os.environ.get(name)), "1"))


def leave_when_asked() -> None:
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(STOPPED))


def remove_unfinished_files() -> None:
    """Remove what a start that was killed left: submitit refuses to write beside it."""
    if "SUBMITIT_FOLDER" not in os.environ:
        return
    from submitit import JobEnvironment

    job = JobEnvironment()
    # The pickle of the task is rank 0's to write anew, when submitit requeues the job.
    files = [job.paths.result_pickle, *([] if job.global_rank else [job.paths.submitted_pickle])]
    for file in files:
        with contextlib.suppress(OSError):
            file.with_suffix(f"{file.suffix}.save_tmp").unlink()


# --- the end of a rank


def be_deaf() -> None:
    """Ignore all signals: a second signal would kill a rank that has saved and is leaving."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def is_last_start() -> bool:
    """Return whether the batch script will not start this job again."""
    from dlfd_dist.runtime.env import job_info

    limit = os.environ.get(MAX_RESTARTS)
    return limit is not None and job_info().restarts >= int(limit)


def final_status(status: int) -> int:
    """Return the exit status of a rank: a job that will not come back has failed."""
    return FAILED if status in (STOPPED, LOST) and is_last_start() else status


def _requeue(by_submitit: Any) -> None:
    """Let submitit bring back the job of a user's own executor, whose script does not requeue.

    As in any job of submitit, USR2 asks for that and TERM does not.
    """
    from dlfd_dist.runtime.preemption import asked_by

    if signal.SIGUSR2 in asked_by() and callable(by_submitit):
        by_submitit(signal.SIGUSR2, None)


def guarded(work: Callable[[], int]) -> int:
    """Do a run's work; a crash is printed and is exit status 1, so that the next run is begun."""
    try:
        return work()
    except Exception:
        traceback.print_exc()
        return FAILED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


# --- the files of a process


@functools.cache
def data_reader() -> DataReader:
    """Return what reads the data of all runs of this process, once where they share it."""
    from dlfd_dist.data.loaders import DataReader

    return DataReader()


def redirect(log: os.PathLike[str], *, anew: bool = False) -> None:
    """Send this process's output to the end of a file, or to a file that is emptied first."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND), 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


@contextlib.contextmanager
def output_to(log: os.PathLike[str] | None) -> Iterator[None]:
    """Send this process's output to a file inside the block, where a file is given."""
    if log is None:
        yield
        return
    kept = [os.dup(stream) for stream in (1, 2)]
    redirect(log)
    try:
        yield
    finally:
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
