"""What a job of a campaign does on each of its ranks.

A task names a file under CAMPAIGN/jobs and its own number in the array of the job. Nothing heavier
travels with a job: settings are in the plan, progress is in the run directories. A local rank of
several is a process of its own: python -m launch.verbs.task CAMPAIGN JOB [INDEX]
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist.errors import LOST, STOPPED

from ..execute.task import (
    MAX_RESTARTS,
    JobTask,
    be_deaf,
    data_reader,
    final_status,
    guarded,
    is_last_start,
    leave_when_asked,
    mind_early_signals,
    output_to,
    result_of,
)

if TYPE_CHECKING:
    from dlfd_dist.config import JobConfig
    from dlfd_dist.run_dir import RunDir

    from ..plan.runs import Plan, Run

Done = tuple[int, "RunDir | None"]
"""The exit status of a run on this rank, and the run directory where this rank knows it."""


@dataclass(frozen=True)
class CampaignTask(JobTask):
    """One task of a campaign's job."""

    campaign: Path
    job: str
    index: int = 0

    def work(self) -> tuple[int, dict[str, Any]]:
        from dlfd_dist.access import PRIVATE, making, set_mode

        record = self._record()
        # Whatever umask the node gives a job: results of submitit are for this user alone.
        set_mode(PRIVATE)
        with making(record["mode"]):
            return self._report(record) if record["report"] else self._work(record)

    def _report(self, record: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._plan(record).finisher == "search":
            from ..search.job import report_search as finish
        else:
            from ..results.campaign import write_campaign_report as finish
        return finish(self.campaign), {"run_dir": str(self.campaign)}

    def _work(self, record: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        from dlfd_dist.runtime.env import rank_info

        runs = self._runs(record)
        if record["packed"]:
            done = self._run_pack(runs, record)
        else:
            say_what_differs(record)
            done = [self._run(run, record) for run in runs]
        status = max((status for status, _ in done), default=0)
        results = [result_of(run_dir) for ended, run_dir in done if run_dir and not ended]
        if record["packed"] or len(done) > 1:
            return status, {"runs": results}
        return status, results[0] if results else {"rank": rank_info().rank}

    def _record(self) -> dict[str, Any]:
        return json.loads((self.campaign / "jobs" / f"{self.job}.json").read_text("utf-8"))

    def _plan(self, record: Mapping[str, Any]) -> Plan:
        from ..plan.runs import read_plan

        return read_plan(self.campaign, record["plan"])

    def _runs(self, record: Mapping[str, Any]) -> list[Run]:
        by_key = self._plan(record).by_key
        return [by_key[key] for key in record["units"][self.index]]

    def _run_pack(self, runs: list[Run], record: Mapping[str, Any]) -> list[Done]:
        """Run this rank's share of a pack, each run alone on it and with a log of its own."""
        rank, ranks = _leave_the_others()
        leave_when_asked()
        done: list[Done] = []
        for run in runs[rank::ranks]:
            done.append(self._run(run, record))
            if done[-1][0] == STOPPED:
                # In the job's log too, which is the only log of the runs that never began.
                _tell_if_it_is_the_last(None)
                return [done[-1]]
        return done

    def _run(self, run: Run, record: Mapping[str, Any]) -> Done:
        from dlfd_dist.__main__ import run_ranks
        from dlfd_dist.errors import DlfdError
        from dlfd_dist.jobs import prepare
        from dlfd_dist.runtime.env import rank_info

        try:
            if run.role == "search":
                from ..search.job import carry_out, claim_search
                from ..search.plan import read_search

                plan = read_search(self._plan(record).for_finisher["search"])
                run_dir, work = claim_search(plan), functools.partial(carry_out, plan)
                return self._run_as_main(run, run_dir, work, record), run_dir
            config = _ready(run)
            if run.after:
                from ..results.tuning import tuned

                config = tuned(self.campaign, record["plan"], run, config)
            ready = functools.partial(prepare, reader=data_reader())
            work = functools.partial(run_ranks, [config], ready)
            if not rank_info().is_main:
                return work(), None
            run_dir = _claim(config)
            return self._run_as_main(run, run_dir, work, record), run_dir
        except DlfdError as err:
            print(f"dlfd: {run.label}: {err}", file=sys.stderr)
            return err.exit_status, None

    def _run_as_main(
        self, run: Run, run_dir: RunDir, work: Callable[[], int], record: Mapping[str, Any]
    ) -> int:
        from dlfd_dist.runtime.env import STARTS_BEFORE, job_info

        from ..execute.background import LOCAL_JOB
        from ..execute.journal import attempt, read_attempts
        from ..execute.places import job_log
        from ..execute.restart import make_restartable

        place = job_info()
        job_id = place.job_id or os.environ.get(LOCAL_JOB, "local:")
        index = self.index if len(record["units"]) > 1 else None
        log = job_log(self.campaign, self.job, job_id, index)
        if record["packed"]:
            log = run_dir.logs / "console.log"
        facts = {
            "job_id": job_id, "job": self.job, "restart": place.restarts,
            "directory": str(run_dir.path), "log": str(log),
        }  # fmt: skip
        with attempt(self.campaign, run.key, facts) as ended:
            # Its result counts the starts under other jobs too.
            before = read_attempts(self.campaign, run.key).restarts
            os.environ[STARTS_BEFORE] = str(before)
            make_restartable(self.campaign, run, run_dir, record, starts=before + 1)
            with output_to(log if record["packed"] else None):
                ended.append(guarded(work))
                if ended[-1] in (STOPPED, LOST):
                    be_deaf()
                    _tell_if_it_is_the_last(run_dir)
        return ended[-1]


def say_what_differs(record: Mapping[str, Any]) -> None:
    """Say where SLURM gave other ranks, nodes or GPUs than the plan asked for."""
    from dlfd_dist.runtime.env import job_info, rank_info

    info = rank_info()
    if "SLURM_STEP_ID" not in os.environ or not info.is_main or record["ray"]:
        return
    nodes, tasks = record["nodes"], record["tasks_per_node"]
    given = (info.world_size, job_info().num_nodes)
    if given != (nodes * tasks, nodes):
        print(
            f"dlfd: note: the plan asked for {nodes * tasks} ranks on {nodes} nodes, and SLURM "
            f"started {given[0]} on {given[1]}: cluster.options or cluster.srun_args change what "
            "cluster.nodes and cluster.tasks_per_node say.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    wanted = {"gres": tasks, "per_task": 1}.get(record["gpus"], 0)
    names = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_STEP_GPUS")
    seen = next((os.environ[name].split(",") for name in names if os.environ.get(name)), [])
    if len(seen) < wanted:
        print(
            f"dlfd: note: the plan asked for {wanted} GPUs for this rank to choose from "
            f"(cluster.gpus={record['gpus']}), and SLURM shows it {len(seen)}: ranks share GPUs or "
            "use the CPU.",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _ready(run: Run) -> JobConfig:
    """Return the configuration of a run; ConfigError if a parent of it is not finished."""
    from dlfd_dist.errors import ConfigError
    from dlfd_dist.run_dir import RunDir

    config = run.config
    for path in (config.checkpoint, config.reference):
        if run.parents and path and not RunDir(Path(path)).finished():
            raise ConfigError(f"the run it starts from is not finished: {path}.")
    threads = config.runtime.threads_per_rank or int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if threads:
        # Without binding a task sees all cores of the node, and every rank would take them all.
        config = replace(config, runtime=replace(config.runtime, threads_per_rank=threads))
    return config


def _claim(config: JobConfig) -> RunDir:
    """Create or join the run directory, so that a log and a script can lie in it."""
    from dlfd_dist.compose import config_text
    from dlfd_dist.jobs.context import input_digests, run_identity

    inputs = input_digests(config, data_reader().rows(config.data, config.drawn_forget))
    signature, run_dir = run_identity(config, inputs)
    run_dir.claim(signature, inputs, config_text(config))
    return run_dir


def _tell_if_it_is_the_last(run_dir: RunDir | None) -> None:
    """Say why a run that stopped will not come back by itself."""
    from dlfd_dist.runtime.env import job_info

    if not is_last_start():
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


def main(arguments: list[str]) -> int:
    from dlfd_dist.plain import visible_output

    mind_early_signals()
    campaign, job, *index = arguments
    with visible_output():
        status, _ = CampaignTask(Path(campaign), job, int(index[0]) if index else 0).work()
    be_deaf()
    return final_status(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
