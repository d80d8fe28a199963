"""What `dlfd submit` shows: the plan with every batch script, or what was queued."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dlfd_dist.plain import counted

from ..execute.batch import Waits
from ..execute.batches import Batch
from ..execute.submission import REPORT, Submission


def show_plan(submission: Submission, *, as_json: bool) -> None:
    """Print the DAG, what is reused, the estimate, and every batch script."""
    rows: list[dict[str, Any]] = []

    def note(batch: Batch, waits: Waits) -> str:
        rows.append(_job_row(submission, batch, waits))
        return f"<{batch.name}>"  # stands for an id that is not given yet

    submission.hand_to(note, always_report=True)
    if as_json:
        print(json.dumps({"dry_run": True, **facts_of(submission), "jobs": rows}, indent=2))
        return
    show_head(submission)
    tasks = counted(sum(row["tasks"] for row in rows), "task")
    print(f"  {counted(len(rows), 'job')}, {tasks} with runs; {_gpus_in_words(submission, rows)}")
    for row in rows:
        _show_row(row)
    if submission.plan.cluster.kind != "local":
        limit = submission.plan.cluster.time_min
        print(
            f"  each task may take {limit} min (cluster.time_min); a run that needs longer goes on"
        )
    limit = submission.plan.cluster.max_running
    if limit:
        print(
            f"  cluster.max_running={limit}: at most {limit} of these tasks run at once, over all "
            "jobs; for that a job may wait for the end of others that it does not need"
        )
    for row in rows:
        print(f"\n# {row['job']}\n{row['sbatch']}", end="")


def _job_row(submission: Submission, batch: Batch, waits: Waits) -> dict[str, Any]:
    spec = batch.spec
    return {
        "job": batch.name, "runs": sum(map(len, batch.units)), "tasks": batch.num_tasks,
        "nodes": spec.nodes, "tasks_per_node": spec.tasks_per_node, "packed": spec.packed,
        "gpus_per_task": _gpus_per_task(submission, batch), "why": spec.why,
        "by_task": batch.by_task, "waits_for": list(waits.after_ok),
        "waits_for_end_of": list(waits.after_any),
        "what": "report" if spec is REPORT else batch.title,
        "sbatch": submission.job(batch, waits).executor().text(),
    }  # fmt: skip


def _gpus_per_task(submission: Submission, batch: Batch) -> int:
    """Return the GPUs that SLURM is asked for by one task of a job."""
    cluster = submission.plan.cluster
    asks = cluster.kind == "slurm" and cluster.gpus != "none" and batch.spec is not REPORT
    return batch.spec.ranks if asks else 0


def _gpus_in_words(submission: Submission, rows: Sequence[dict[str, Any]]) -> str:
    cluster = submission.plan.cluster
    if cluster.kind == "local":
        return "on this machine, with the GPUs that torch sees here"
    if cluster.gpus == "none":
        given = [option for option in cluster.options if "gpu" in option or "gres" in option]
        return (
            f"GPUs by cluster.options alone: {' '.join(given)}" if given else
            "no GPU is asked for (cluster.gpus=none), so they run on CPUs"
        )  # fmt: skip
    each = [row["gpus_per_task"] for row in rows]
    total = sum(row["gpus_per_task"] * row["tasks"] for row in rows)
    most = f"at most {max(each)} in a task"
    many = f"{counted(total, 'GPU')} over all tasks, which need not run at once, {most}"
    return many if cluster.max_running else f"{many}; cluster.max_running limits them"


def _show_row(row: dict[str, Any]) -> None:
    shape = f"{row['nodes']} x {counted(row['tasks_per_node'], 'rank')}"
    size = f"{counted(row['runs'], 'run')} in {counted(row['tasks'], 'task')} of {shape}"
    success = "after the same task of" if row["by_task"] else "after"
    kinds = ((success, "waits_for"), ("when ended", "waits_for_end_of"))
    after = [f", {kind} {' '.join(row[name])}" for kind, name in kinds if row[name]]
    print(f"  {row['job']}: {size}", *after, sep="")
    print(f"    {row['what']} ({row['why']})")


def facts_of(submission: Submission) -> dict[str, Any]:
    """Return the campaign, what need not be done again, and the estimate of the rest."""
    labels = {run.key: run.label for run in submission.plan.runs}
    return {
        "campaign": str(submission.plan.path),
        "reused": [labels[key] for key in submission.finished],
        "joined": [labels[key] for key in submission.joined],
        "estimated_device_hours": round(submission.device_hours, 3),
    }


def show_head(submission: Submission) -> None:
    facts = facts_of(submission)
    print(f"campaign {facts['campaign']}: {counted(len(submission.plan.runs), 'run')}")
    for name, what in (("reused", "finished before"), ("joined", "queued already")):
        if facts[name]:
            print(f"  {what}: {', '.join(facts[name])}")
    print(f"  estimated: {facts['estimated_device_hours']:.2f} device hours")


def show_answers(submission: Submission, answers: dict[str, str], *, as_json: bool) -> None:
    """Print what sbatch --test-only says of each job."""
    if as_json:
        print(json.dumps({**facts_of(submission), "answers": answers}, indent=2))
        return
    show_head(submission)
    for job, answer in answers.items():
        print(f"  {job}: {answer}")


def show_submission(submission: Submission, *, as_json: bool) -> None:
    """Say what was queued, and how to follow it."""
    labels = {run.key: run.label for run in submission.plan.runs}
    jobs = [
        {"job_id": place.job_id, "job": place.job, "run": labels[key]}
        for key, place in submission.placed.items()
    ]
    if as_json:
        shown = {**facts_of(submission), "job_ids": submission.job_ids, "runs": jobs}
        print(json.dumps(shown, indent=2))
        return
    show_head(submission)
    if not submission.job_ids:
        print("  nothing to submit")
    for job_id in submission.job_ids:
        names = [job["run"] for job in jobs if job["job_id"].split("_")[0] == job_id]
        print(f"  {job_id}: {', '.join(names) or 'report'}")
    print(f"follow it: dlfd status {submission.plan.path}")
