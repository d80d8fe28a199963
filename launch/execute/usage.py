"""What the jobs of a campaign have used, as sacct tells it after their end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dlfd_dist.run_dir import write_json
from dlfd_dist.runtime.accounting import Usage, total, usage_of_step

from .slurm import STARTED, SchedulerError, call

FIELDS = "JobID,State,ConsumedEnergyRaw,MaxRSS,TRESUsageInTot"


def sacct_usage(job_ids: Sequence[str]) -> dict[str, Usage]:
    """Return what accounting holds of these jobs, by job or by task of an array, in one call."""
    ids = sorted({job_id.split("_")[0] for job_id in job_ids})
    words = ["sacct", "--duplicates", "-n", "-P", "-j", ",".join(ids), "-o", FIELDS]
    return read_usage(call(words))


def read_usage(answer: str) -> dict[str, Usage]:
    """Return the usage of jobs that have ended, from `sacct --duplicates -P -o FIELDS`.

    Each start of a job has a line, and lines of its steps follow. Energy is that of the job's line
    or, where that has none, of the step that used most: steps share their nodes, and the energy of
    a node counts for each step on it.
    """
    used: dict[str, list[Usage]] = {}
    under_way: set[str] = set()
    for job_id, lines in _starts(answer):
        steps = [usage_of_step(*fields[2:]) for fields in lines]
        of_job, *of_steps = [step.energy_joules for step in steps]
        energy = of_job or max(filter(None, of_steps), default=None)
        used.setdefault(job_id, []).append(replace(total(steps), energy_joules=energy))
        (under_way.add if lines[0][1] in STARTED else under_way.discard)(job_id)
    return {job_id: total(starts) for job_id, starts in used.items() if job_id not in under_way}


def _starts(answer: str) -> list[tuple[str, list[list[str]]]]:
    """Return the starts of jobs with their lines, the job's own first."""
    starts: list[tuple[str, list[list[str]]]] = []
    for line in answer.splitlines():
        fields = line.split("|", 4)
        job_id, _, step = fields[0].partition(".")
        if not step:
            starts.append((job_id, []))
        if starts:
            starts[-1][1].append(fields)
    return starts


def usage_of(campaign: Path, job_ids: Sequence[str]) -> dict[str, Usage]:
    """Return what jobs that have ended used, by id; jobs that accounting does not know are missing.

    What was asked once is kept beside the jobs of the campaign, for it does not change.
    """
    file = campaign / "jobs" / "usage.json"
    try:
        kept = {k: Usage(**v) for k, v in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError):
        kept = {}
    missing = [job_id for job_id in job_ids if job_id not in kept]
    if missing:
        try:
            answer = sacct_usage(missing)
        except SchedulerError:
            answer = {}  # a site without accounting
        kept |= {job_id: answer[job_id] for job_id in missing if job_id in answer}
        if answer:
            write_json(file, {job_id: asdict(usage) for job_id, usage in kept.items()})
    return {job_id: kept[job_id] for job_id in job_ids if job_id in kept}
