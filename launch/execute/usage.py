"""What jobs have used, as SLURM's accounting counts it: energy, memory, time of the cores.

A site that measures no energy has 0 in its records, and steps of less than a second have no memory:
both are None here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlfd_dist.run_dir import write_json

from .slurm import STARTED, SchedulerError, call, seconds

FIELDS = "JobID,State,ConsumedEnergyRaw,MaxRSS,TRESUsageInTot"
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
MB = 1e6


@dataclass(frozen=True)
class Usage:
    """What a job or a task of an array has used in all its starts; None: nobody measured it."""

    energy_joules: float | None = None
    """Of its nodes while it had them, other jobs on the same nodes included."""
    max_rss_mb: float | None = None
    """The largest resident memory of a process."""
    cpu_seconds: float | None = None
    disk_read_mb: float | None = None


def total(usages: Iterable[Usage]) -> Usage:
    """Return what jobs, or the starts of a job, have used together, as far as it was measured."""
    rows = [asdict(usage) for usage in usages]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in asdict(Usage())}
    used = {name: sum(values) if values else None for name, values in known.items()}
    return Usage(**used | {"max_rss_mb": max(known["max_rss_mb"], default=None)})


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
        energies = [
            float(line[2]) if line[2].isdecimal() and int(line[2]) else None for line in lines
        ]
        energy = energies[0] or max(filter(None, energies[1:]), default=None)
        steps = [_step(rss, tres) for *_, rss, tres in lines]
        used.setdefault(job_id, []).append(total([Usage(energy), *steps]))
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


def _step(rss: str, tres: str) -> Usage:
    pairs = (pair.split("=", 1) for pair in tres.split(",") if "=" in pair)
    counts = {name: value for name, value in pairs}
    memory, disk = size(rss), size(counts.get("fs/disk", ""))
    return Usage(
        None,
        None if memory is None else memory / MB,
        seconds(counts["cpu"]) if "cpu" in counts else None,
        None if disk is None else disk / MB,
    )


def size(text: str) -> float | None:
    """Return bytes of what SLURM writes with a letter for powers of 1024; None for no size.

    >>> size("72060K"), size("1.50G"), size("")
    (73789440.0, 1610612736.0, None)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    return None if match is None else float(match[1]) * UNITS[match[2]]


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
