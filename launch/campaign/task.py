"""What a job does on each rank: python -m launch.campaign.task CAMPAIGN JOB [INDEX]

JOB names a file under CAMPAIGN/jobs, INDEX the task of its array. Nothing heavier than that travels
with a job: settings are in the plan, progress is in the run directories.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlfd_dist.config import JobConfig
    from dlfd_dist.data.loaders import DataReader
    from dlfd_dist.run_dir import RunDir

    from .plan import CampaignRun

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
STOPPED, LOST, FAILED = 75, 76, 1
MAX_RESTARTS = "DLFD_MAX_RESTARTS"
"""The batch script sets it, and slurm/lib/requeue.sh obeys it."""


@dataclass(frozen=True)
class Task:
    """One task of a job; calling it on each rank does the work and returns the exit status."""

    campaign: Path
    job: str
    index: int = 0

    @functools.cached_property
    def _reader(self) -> DataReader:
        """What reads the data of the runs, once where they share it."""
        from dlfd_dist.data.loaders import DataReader

        return DataReader()

    def __call__(self) -> int:
        record = self._record()
        self._set_mode(record)
        if record["report"]:
            from .results import write_campaign_report

            return write_campaign_report(self.campaign)
        runs = self._runs(record)
        if record["packed"]:
            return self._run_pack(runs, record)
        return max((self._run(run, record) for run in runs), default=0)

    def _record(self) -> dict[str, Any]:
        return json.loads((self.campaign / "jobs" / f"{self.job}.json").read_text("utf-8"))

    def _set_mode(self, record: Mapping[str, Any]) -> None:
        """Make files with the mode of the campaign, whatever umask the node gives a job."""
        from dlfd_dist.access import PRIVATE, set_mode

        from .plan import read_plan

        _, runs = read_plan(self.campaign / "plans" / record["plan"])
        set_mode(runs[0].config["run"].get("mode", PRIVATE) if runs else PRIVATE)

    def _runs(self, record: Mapping[str, Any]) -> list[CampaignRun]:
        from .plan import read_plan

        _, runs = read_plan(self.campaign / "plans" / record["plan"])
        by_key = {run.key: run for run in runs}
        return [by_key[key] for key in record["units"][self.index]]

    def _run_pack(self, runs: list[CampaignRun], record: Mapping[str, Any]) -> int:
        """Run this rank's share of a pack, each run alone on it and with a log of its own."""
        rank, ranks = _leave_the_others()
        _leave_when_asked()
        worst = 0
        for run in runs[rank::ranks]:
            status = self._run(run, record)
            if status == STOPPED:
                # In the job's log too: it is the only one of the runs that never began.
                _tell_if_it_is_the_last(None)
                return status
            worst = max(worst, status)
        return worst

    def _run(self, run: CampaignRun, record: Mapping[str, Any]) -> int:
        from dlfd_dist.__main__ import run_ranks
        from dlfd_dist.errors import DlfdError
        from dlfd_dist.jobs import prepare
        from dlfd_dist.runtime.env import rank_info

        try:
            if run.config["verb"] == "search":
                from ..search.job import part_of

                part = part_of(self.campaign, run)
                if not rank_info().is_main:
                    return part()
                return self._run_as_main(run, part.claim(), part, record)
            config = _ready(run)
            if run.after:
                from .tuning import tuned

                config = tuned(self.campaign, record["plan"], run, config)
            ready = functools.partial(prepare, reader=self._reader)
            work = functools.partial(run_ranks, [config], ready)
            if not rank_info().is_main:
                return work()
            return self._run_as_main(run, _claim(config, self._reader), work, record)
        except DlfdError as err:
            print(f"dlfd: {run.label}: {err}", file=sys.stderr)
            return err.exit_status

    def _run_as_main(
        self, run: CampaignRun, run_dir: RunDir, work: Callable[[], int], record: Mapping[str, Any]
    ) -> int:
        from dlfd_dist.runtime.env import STARTS_BEFORE, job_info

        from .attempts import attempt, read_attempts
        from .local import LOCAL_JOB

        place = job_info()
        log = Path(record["log"].replace("%a", str(self.index)))
        if record["packed"]:
            log = run_dir.logs / "console.log"
        facts = {
            "job_id": place.job_id or os.environ.get(LOCAL_JOB, "local:"), "job": self.job,
            "restart": place.restarts, "directory": str(run_dir.path), "log": str(log),
        }  # fmt: skip
        with attempt(self.campaign, run.key, facts) as ended:
            # Its result counts the starts under other jobs too.
            os.environ[STARTS_BEFORE] = str(read_attempts(self.campaign, run.key).restarts)
            self._make_restartable(run, run_dir, record)
            with _output_to(log if record["packed"] else None):
                ended.append(_guarded(work))
                if ended[-1] in (STOPPED, LOST):
                    _be_deaf()
                    _tell_if_it_is_the_last(run_dir)
        return ended[-1]

    def _make_restartable(
        self, run: CampaignRun, run_dir: RunDir, record: Mapping[str, Any]
    ) -> None:
        """Put into the run directory what restarts it alone, and which code it ran."""
        import shutil

        from dlfd_dist.run_dir import write_json, write_text

        from .restart import single_run

        name, text, job = single_run(self.campaign, run, record)
        write_json(self.campaign / "jobs" / f"{name}.json", job)
        write_text(run_dir.path / "submit.sbatch", text)
        for file in ("code.json", "code.diff"):
            with contextlib.suppress(FileNotFoundError, shutil.SameFileError):
                shutil.copyfile(self.campaign / file, run_dir.path / file)


def _ready(run: CampaignRun) -> JobConfig:
    """Return the configuration of a run whose parents are finished; ConfigError if one is not."""
    from dlfd_dist.compose import job_from_dict
    from dlfd_dist.errors import ConfigError
    from dlfd_dist.run_dir import RunDir

    config = job_from_dict(run.config)
    for path in (config.checkpoint, config.reference):
        if run.parents and path and not RunDir(Path(path)).finished():
            raise ConfigError(f"the run it starts from is not finished: {path}.")
    threads = config.runtime.threads_per_rank or int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if threads:
        # Without binding a task sees all cores of the node, and every rank would take them all.
        config = replace(config, runtime=replace(config.runtime, threads_per_rank=threads))
    return config


def _claim(config: JobConfig, reader: DataReader) -> RunDir:
    """Create or join the run directory, so that a log and a script can lie in it."""
    from dlfd_dist.compose import config_text
    from dlfd_dist.jobs.context import input_digests, run_identity

    inputs = input_digests(config, reader.rows(config.data, config.drawn_forget))
    signature, run_dir = run_identity(config, inputs)
    run_dir.claim(signature, inputs, config_text(config))
    return run_dir


def _guarded(work: Callable[[], int]) -> int:
    """Run on this rank; a crash is printed and is exit status 1, so that a pack goes on."""
    try:
        return work()
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _is_last_start() -> bool:
    """Whether the batch script will not start this job again."""
    from dlfd_dist.runtime.env import job_info

    limit = os.environ.get(MAX_RESTARTS)
    return limit is not None and job_info().restarts >= int(limit)


def _mind_early_signals() -> None:
    """Decide what a signal does before the loop listens, when there is nothing to save yet."""
    if os.environ.get("SLURM_NTASKS", "1") == "1":
        _leave_when_asked()
    else:
        from dlfd_dist.runtime.preemption import note_early_stops

        note_early_stops()


def _leave_when_asked() -> None:
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit(STOPPED))


def _be_deaf() -> None:
    """Hear no signal any more: a second one would kill a rank that has saved and is leaving."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _tell_if_it_is_the_last(run_dir: RunDir | None) -> None:
    """Say why a run that stopped will not come back by itself."""
    from dlfd_dist.runtime.env import job_info

    if not _is_last_start():
        return
    print(
        f"dlfd: stopped after {job_info().restarts} restarts, "
        f"cluster.max_restarts={os.environ[MAX_RESTARTS]}; 'dlfd retry CAMPAIGN --failed' or a "
        f"higher limit goes on from {_reached(run_dir)}.",
        file=sys.stderr,
        flush=True,
    )


def _reached(run_dir: RunDir | None) -> str:
    if run_dir is None:
        return "there"
    try:
        latest = (run_dir.checkpoints / "latest").read_text(encoding="utf-8")
    except FileNotFoundError:
        latest = "step_0"
    return "step " + latest.strip().removeprefix("step_")


def _leave_the_others() -> tuple[int, int]:
    """Make this task of a job step a rank of its own; return its place among the tasks."""
    if "SLURM_STEP_ID" not in os.environ:
        return 0, 1
    rank, ranks = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(seen) > 1:
        # --gres shows every task all GPUs of the node.
        local = int(os.environ["SLURM_LOCALID"])
        os.environ["CUDA_VISIBLE_DEVICES"] = seen[local % len(seen)]
    del os.environ["SLURM_STEP_ID"]
    return rank, ranks


@contextlib.contextmanager
def _output_to(log: Path | None) -> Iterator[None]:
    """Send this process's output to a file, where one is given."""
    if log is None:
        yield
        return
    kept = [os.dup(stream) for stream in (1, 2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        for stream in (1, 2):
            os.dup2(file, stream)
        yield
    finally:
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
        os.close(file)


def main(arguments: list[str]) -> int:
    from dlfd_dist.plain import visible_output

    _mind_early_signals()
    campaign, job, *index = arguments
    with visible_output():
        status = Task(Path(campaign), job, int(index[0]) if index else 0)()
    _be_deaf()
    return FAILED if status in (STOPPED, LOST) and _is_last_start() else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
