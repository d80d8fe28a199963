"""dlfd submit: the campaign's jobs are written, queued and chained; nothing is done twice."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dlfd_dist.errors import RunDirError
from dlfd_dist.run_dir import write_json, write_text

from ..children import mind_working_directory
from ..execute import slurm
from ..execute.batch import BatchJob, Waits
from . import code
from .batches import Batch, make_batches
from .ledger import Ledger, Placement, placements_of
from .places import job_folder
from .plan import Campaign, plan_campaign
from .spec import LaunchSpec
from .states import live
from .task import CampaignTask

REPORT = LaunchSpec(why="runs whatever became of the others, and names what is missing")


class Lanes:
    """cluster.max_running for a whole campaign: so many lanes, with one task in each at a time.

    SLURM itself limits the tasks of one array alone (%N). A job takes as many lanes as tasks of it
    may run at once, and waits until the jobs before it in these lanes have ended, well or not.
    """

    def __init__(self, limit: int | None, busy: Sequence[str]):
        self.limit = limit
        self._lanes = [(0.0, list(busy))] * (limit or 0)
        """When each is free, by the estimates, and the jobs that must have ended by then."""

    def take(self, num_tasks: int, task_seconds: float) -> tuple[list[str], list[str]]:
        """Return the jobs to wait for, and a list that the caller puts the new job's id into."""
        self._lanes.sort(key=lambda lane: lane[0])
        taken, job = self._lanes[:num_tasks], []
        if taken:
            end = taken[-1][0] + math.ceil(num_tasks / len(taken)) * task_seconds
            self._lanes[: len(taken)] = [(end, job)] * len(taken)
        return list(dict.fromkeys(one for _, jobs in taken for one in jobs)), job


@dataclass
class Submission:
    """What one submit or retry queues, and what it need not."""

    campaign: Campaign
    number: int
    finished: dict[str, Path]
    joined: dict[str, Placement]
    """Runs that an earlier submission has in the queue."""
    busy: list[str] = field(default_factory=list)
    """The jobs of earlier submissions that have not ended, whatever they do."""
    code: Path | None = None
    placed: dict[str, Placement] = field(default_factory=dict)
    job_ids: list[str] = field(default_factory=list)

    @property
    def batches(self) -> list[Batch]:
        todo = [
            run
            for run in self.campaign.runs
            if run.key not in self.finished and run.key not in self.joined
        ]
        return make_batches(todo, self.campaign.cluster, self.number, self.joined.keys())

    @property
    def report(self) -> Batch:
        return Batch(f"{self.number:02d}-report", ((),), REPORT, title="the report")

    def job(self, batch: Batch, waits: Waits | None = None) -> BatchJob:
        return job_of(self.campaign, batch, self.code, waits)

    def waits_for(self, batch: Batch, placed: Mapping[str, Placement]) -> list[str]:
        """Return the ids of the jobs whose models the runs of a batch need."""
        where = {**self.joined, **placed}
        ids = [where[key].job_id for key in batch.parents]
        return list(dict.fromkeys(i.split("_")[0] if batch.by_task else i for i in ids))

    def waits_for_end_of(self, batch: Batch, placed: Mapping[str, Placement]) -> list[str]:
        """Return the ids of the jobs that must have ended before a batch, well or not."""
        where = {**self.joined, **placed}
        ids = [where[key].job_id.split("_")[0] for key in batch.after if key not in self.finished]
        return list(dict.fromkeys(ids))

    @property
    def lanes(self) -> Lanes:
        return Lanes(self.campaign.cluster.max_running, self.busy)

    def task_seconds(self, batch: Batch) -> float:
        """Return what the longest task of a batch is estimated to take."""
        runs = self.campaign.by_key
        sums = [sum(runs[key].rank_seconds for key in unit) for unit in batch.units]
        return max(sums) / batch.spec.ranks


def job_of(
    campaign: Campaign, batch: Batch, code_dir: Path | None, waits: Waits | None = None
) -> BatchJob:
    cluster = campaign.cluster
    if batch.spec is REPORT:
        cluster = replace(cluster, gpus="none")
    return BatchJob(
        job_folder(campaign.path), f"dlfd-{campaign.name}-{batch.name}",
        f"dlfd {campaign.verb}: {batch.title}", batch.spec, cluster, batch.array, os.getcwd(),
        code_dir, waits or Waits(),
    )  # fmt: skip


def run_submit(words: Sequence[str], *, dry_run: bool, test_only: bool, as_json: bool) -> int:
    """Submit a campaign, or show what would be submitted."""
    mind_working_directory()
    verb, *overrides = words or [""]
    campaign = plan_campaign(verb, overrides)
    for variant in campaign.left_out:
        print(f"left out: {variant}", file=sys.stderr)
    _warn_of_local_disk(campaign)
    if dry_run:
        show_plan(_look(campaign), as_json=as_json)
        return 0
    if campaign.cluster.kind == "slurm":
        slurm.check_cluster(campaign.cluster, max(run.spec.nodes for run in campaign.runs))
    if test_only:
        return _test_only(_look(campaign), as_json=as_json)
    submission = submit(campaign)
    show_submission(submission, as_json=as_json)
    return 0


def _warn_of_local_disk(campaign: Campaign) -> None:
    if campaign.cluster.kind == "local":
        return
    for local in campaign.cluster.local_paths:
        if campaign.path.is_relative_to(local):
            print(
                f"warning: run.dir={campaign.path} lies under {local}, which other nodes often do "
                "not see: a campaign needs a file system that all nodes share.",
                file=sys.stderr,
            )
            return


def _look(campaign: Campaign) -> Submission:
    """Return what would be submitted; nothing is written, and without SLURM nothing is asked."""
    ledger = Ledger(campaign.path)
    joined = live(ledger.placements()) if ledger.file.is_file() and slurm.has("squeue") else {}
    return _submission(campaign, ledger, joined)


def _submission(campaign: Campaign, ledger: Ledger, joined: Mapping[str, Placement]) -> Submission:
    wanted = {run.key for run in campaign.runs}
    ids = [where.job_id.split("_")[0] for where in joined.values()]
    busy = list(dict.fromkeys(one for one in ids if not one.startswith("local:")))
    joined = {key: where for key, where in joined.items() if key in wanted}
    number = 1 + sum(event["event"] == "planned" for event in ledger.events())
    code_dir = code.checkout() if not campaign.cluster.prefix else None
    return Submission(campaign, number, campaign.finished(), joined, busy, code_dir)


def submit(campaign: Campaign) -> Submission:
    """Queue what is neither finished nor queued; the ledger is held meanwhile."""
    _ask_first(campaign)
    _create(campaign.path)
    ledger = Ledger(campaign.path)
    with ledger.locked():
        _settle(ledger)
        submission = _submission(campaign, ledger, live(ledger.placements()))
        _record(campaign, ledger, submission)
        batches = submission.batches
        if campaign.cluster.kind == "local":
            _start_locally(submission, ledger, batches)
            return submission
        lanes = submission.lanes
        for batch in batches:
            after = submission.waits_for(batch, submission.placed)
            ended, job = lanes.take(batch.num_tasks, submission.task_seconds(batch))
            ended = [*submission.waits_for_end_of(batch, submission.placed), *ended]
            _queue(submission, ledger, batch, Waits(after, ended, batch.by_task))
            job.append(submission.job_ids[-1])
        waiting = [where.job_id.split("_")[0] for where in submission.joined.values()]
        after = list(dict.fromkeys([*submission.job_ids, *waiting]))
        if after or not (campaign.path / "report.html").is_file():
            _queue(submission, ledger, submission.report, Waits(after_any=after))
    return submission


def _ask_first(campaign: Campaign) -> None:
    """Let sbatch judge every shape before anything is written: account, QOS, limits of the site."""
    if campaign.cluster.kind == "local":
        return
    for spec in dict.fromkeys(run.spec for run in campaign.runs):
        batch = Batch("test", ((),), spec, title="a question")
        job = replace(job_of(campaign, batch, None), output=Path("/dev/null"))
        slurm.test_only(job.executor().text())


def _create(path: Path) -> None:
    if (
        path.exists()
        and not (path / "runs").is_dir()
        and (not path.is_dir() or any(path.iterdir()))
    ):
        raise RunDirError(f"run.dir={path} exists and is not a campaign: choose another directory.")
    try:
        for folder in ("runs", "plans", "jobs", "attempts"):
            (path / folder).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise RunDirError(
            f"run.dir={path} cannot be written ({err.strerror}): choose another directory."
        ) from err


def _settle(ledger: Ledger) -> None:
    """Find out what became of a submission whose command died between sbatch and the ledger."""
    for event in ledger.unanswered():
        job_id = slurm.queued_by_name(event["name"]) if slurm.has("squeue") else None
        facts = {k: event[k] for k in ("job", "name", "units", "array", "report")}
        if job_id:
            from ..execute.executor import Executor

            tasks = tasks_of(ledger.path, event["job"], len(event["units"]))
            Executor(job_folder(ledger.path)).lay_down(job_id, tasks)
            ledger.append("submitted", job_id=job_id, **facts)
        else:
            ledger.append("refused", job=event["job"], why="its command died, and no job is queued")


def _record(campaign: Campaign, ledger: Ledger, submission: Submission) -> None:
    """Write plan and code, and note the submission."""
    write_text(campaign.path / "plans" / campaign.plan_name, campaign.text())
    now, diff = code.current()
    code.store(campaign.path, now, diff)
    if campaign.cluster.snapshot:
        submission.code = code.snapshot(campaign.path, now)
    reused = {key: str(path) for key, path in submission.finished.items()}
    ledger.append(
        "planned", plan=campaign.plan_name, reused=reused, joined=sorted(submission.joined),
        words=[campaign.verb, *campaign.words], code=asdict(now),
    )  # fmt: skip


def _queue(submission: Submission, ledger: Ledger, batch: Batch, waits: Waits) -> None:
    path, job = submission.campaign.path, submission.job(batch, waits)
    _write_job(submission, batch)
    facts: dict[str, Any] = {
        "job": batch.name, "name": job.name, "units": batch.units, "array": bool(job.array),
        "report": batch.spec is REPORT,
    }  # fmt: skip
    executor = job.executor()
    # First the intent: a command that dies after sbatch leaves a job that _settle finds by name.
    ledger.append("submitting", **facts)
    try:
        first, *_ = executor.submit_array(tasks_of(path, batch.name, len(batch.units)))
    except slurm.SchedulerError as err:
        ledger.append("refused", job=batch.name, why=str(err))
        raise slurm.SchedulerError(
            f"{err} {len(submission.job_ids)} jobs of the campaign are queued; the same command "
            "submits the others."
        ) from err
    job_id = first.job_id.partition("_")[0]
    ledger.append("submitted", job_id=job_id, **facts)
    submission.job_ids.append(job_id)
    if batch.spec is not REPORT:
        submission.placed |= placements_of({**facts, "job_id": job_id})


def tasks_of(campaign: Path, job: str, number: int) -> list[CampaignTask]:
    """Return what the tasks of a job do; of numbers that its array leaves out, nobody asks."""
    return [CampaignTask(campaign, job, index) for index in range(number)]


def _write_job(submission: Submission, batch: Batch) -> None:
    """Write down what a task must know of its job."""
    campaign, spec = submission.campaign, batch.spec
    record = {
        "plan": campaign.plan_name, "units": batch.units, "packed": spec.packed, "ray": spec.ray,
        "report": spec is REPORT, "nodes": spec.nodes, "tasks_per_node": spec.tasks_per_node,
        "gpus": campaign.cluster.gpus, "mode": campaign.mode, "directory": os.getcwd(),
        "code": str(submission.code) if submission.code else None,
    }  # fmt: skip
    write_json(campaign.path / "jobs" / f"{batch.name}.json", record)


def _start_locally(submission: Submission, ledger: Ledger, batches: Sequence[Batch]) -> None:
    """Let submitit run the jobs one after another on this machine, in the background."""
    from .local import start

    jobs = [*batches, submission.report]
    for batch in jobs:
        _write_job(submission, batch)
    # What is under way writes the report at its end.
    if not batches and (submission.joined or (submission.campaign.path / "report.html").is_file()):
        return
    job_id = start(submission.campaign.path, [(b.name, len(b.units), b.spec) for b in jobs])
    submission.job_ids.append(job_id)
    for batch in jobs:
        facts = {"job": batch.name, "name": batch.name, "units": batch.units, "array": False}
        ledger.append("submitted", job_id=job_id, report=batch.spec is REPORT, **facts)


# --- what is shown


def _hours(submission: Submission) -> float:
    """Return the estimated device hours of what is to be done."""
    runs = submission.campaign.by_key
    keys = [key for batch in submission.batches for unit in batch.units for key in unit]
    return sum(runs[key].rank_seconds for key in keys) / 3600


def _job_rows(submission: Submission) -> list[dict[str, Any]]:
    """Return the jobs with what they wait for, by the names that stand for ids not given yet."""
    placed: dict[str, Placement] = {}
    rows, lanes = [], submission.lanes
    for batch in submission.batches:
        after = submission.waits_for(batch, placed)
        ended, job = lanes.take(batch.num_tasks, submission.task_seconds(batch))
        ended = [*submission.waits_for_end_of(batch, placed), *ended]
        rows.append(_job_row(submission, batch, Waits(after, ended, batch.by_task)))
        facts = {"job": batch.name, "units": batch.units, "array": bool(batch.array)}
        placed |= placements_of({**facts, "job_id": f"<{batch.name}>"})
        job.append(f"<{batch.name}>")
    names = [f"<{row['job']}>" for row in rows]
    return [*rows, _job_row(submission, submission.report, Waits(after_any=names))]


def _job_row(submission: Submission, batch: Batch, waits: Waits) -> dict[str, Any]:
    spec = batch.spec
    return {
        "job": batch.name, "runs": sum(map(len, batch.units)), "tasks": batch.num_tasks,
        "nodes": spec.nodes, "tasks_per_node": spec.tasks_per_node, "packed": spec.packed,
        "why": spec.why, "by_task": batch.by_task, "waits_for": list(waits.after_ok),
        "waits_for_end_of": list(waits.after_any),
        "what": "report" if spec is REPORT else batch.title,
        "sbatch": submission.job(batch, waits).executor().text(),
    }  # fmt: skip


def _facts(submission: Submission) -> dict[str, Any]:
    labels = {run.key: run.label for run in submission.campaign.runs}
    return {
        "campaign": str(submission.campaign.path),
        "reused": [labels[key] for key in submission.finished],
        "joined": [labels[key] for key in submission.joined],
        "estimated_device_hours": round(_hours(submission), 3),
    }


def show_plan(submission: Submission, *, as_json: bool) -> None:
    """Print the DAG, what is reused, the estimate, and every batch script."""
    rows = _job_rows(submission)
    if as_json:
        print(json.dumps({"dry_run": True, **_facts(submission), "jobs": rows}, indent=2))
        return
    _show_head(submission)
    for row in rows:
        shape = f"{row['nodes']} x {row['tasks_per_node']} ranks"
        after = [
            f", {word} {' '.join(row[name])}"
            for word, name in (
                ("after the same task of" if row["by_task"] else "after", "waits_for"),
                ("when ended", "waits_for_end_of"),
            )
            if row[name]
        ]
        print(
            f"  {row['job']}: {row['runs']} runs in {row['tasks']} tasks of {shape}", *after, sep=""
        )
        print(f"    {row['what']} ({row['why']})")
    limit = submission.campaign.cluster.max_running
    if limit:
        print(
            f"  cluster.max_running={limit}: at most {limit} of these tasks run at once, over all "
            "jobs; for that a job may wait for the end of others that it does not need"
        )
    for row in rows:
        print(f"\n# {row['job']}\n{row['sbatch']}", end="")


def _show_head(submission: Submission) -> None:
    facts = _facts(submission)
    print(f"campaign {facts['campaign']}: {len(submission.campaign.runs)} runs")
    for name, what in (("reused", "finished before"), ("joined", "queued already")):
        if facts[name]:
            print(f"  {what}: {', '.join(facts[name])}")
    print(f"  estimated: {facts['estimated_device_hours']:.2f} device hours")


def _test_only(submission: Submission, *, as_json: bool) -> int:
    """Ask sbatch about every job; return 2 when it would refuse one."""
    answers = {
        batch.name: slurm.test_only(submission.job(batch).executor().text())
        for batch in [*submission.batches, submission.report]
    }
    if as_json:
        print(json.dumps({**_facts(submission), "answers": answers}, indent=2))
        return 0
    _show_head(submission)
    for job, answer in answers.items():
        print(f"  {job}: {answer}")
    return 0


def show_submission(submission: Submission, *, as_json: bool) -> None:
    """Say what was queued, and how to follow it."""
    labels = {run.key: run.label for run in submission.campaign.runs}
    jobs = [
        {"job_id": where.job_id, "job": where.job, "run": labels[key]}
        for key, where in submission.placed.items()
    ]
    if as_json:
        shown = {**_facts(submission), "job_ids": submission.job_ids, "runs": jobs}
        print(json.dumps(shown, indent=2))
        return
    _show_head(submission)
    if not submission.job_ids:
        print("  nothing to submit")
    for job_id in submission.job_ids:
        names = [one["run"] for one in jobs if one["job_id"].split("_")[0] == job_id]
        print(f"  {job_id}: {', '.join(names) or 'report'}")
    print(f"follow it: dlfd status {submission.campaign.path}")
