"""What SLURM counts of a job: energy, memory, time of the cores, read from its own words.

A site that measures no energy has 0 in its records, and steps of less than a second have no memory:
both are None here.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
MB = 1e6
TIMEOUT_S = 10


@dataclass(frozen=True)
class Usage:
    """What a step, a job or a task of an array has used; None: nobody measured it."""

    energy_joules: float | None = None
    """Of its nodes while it had them, other jobs on the same nodes included."""
    max_rss_mb: float | None = None
    """The largest resident memory of a process."""
    cpu_seconds: float | None = None
    disk_read_mb: float | None = None


def total(usages: Iterable[Usage]) -> Usage:
    """Return what jobs, or the starts of a job, have used together, as far as it was measured."""
    rows = [asdict(usage) for usage in usages]
    used: dict[str, float | None] = {}
    for name in asdict(Usage()):
        known = [value for row in rows if (value := row[name]) is not None]
        joined = max if name == "max_rss_mb" else sum
        used[name] = joined(known) if known else None
    return Usage(**used)


def step_so_far(env: Mapping[str, str] = os.environ) -> Usage | None:
    """Return what SLURM has counted of the step of this process until now, by sstat.

    None outside of a step, and where sstat is not there (a container) or does not answer.
    """
    job_id, step = env.get("SLURM_JOB_ID", ""), env.get("SLURM_STEP_ID", "")
    if not (job_id.isdecimal() and step.isdecimal()):
        return None
    command = ["sstat", "-n", "-P", "-j", f"{job_id}.{step}"]
    try:
        answer = subprocess.run(
            [*command, "-o", "ConsumedEnergyRaw,MaxRSS,TRESUsageInTot"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT_S, check=True, env=dict(env),
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    fields = answer.splitlines()[0].split("|", 2) if answer.strip() else []
    return usage_of_step(*fields) if len(fields) == 3 else None


def usage_of_step(energy: str, rss: str, tres: str) -> Usage:
    """Return what a step used, from ConsumedEnergyRaw, MaxRSS and TRESUsageInTot."""
    pairs = (pair.split("=", 1) for pair in tres.split(",") if "=" in pair)
    counts = {name: value for name, value in pairs}
    memory, disk = size(rss), size(counts.get("fs/disk", ""))
    return Usage(
        float(energy) if energy.isdecimal() and int(energy) else None,
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


def seconds(clock: str) -> float | None:
    """Return SLURM's [days-]hours:minutes:seconds in seconds; None for another word.

    Without days there may be minutes alone, or minutes:seconds.

    >>> seconds("1-02"), seconds("90"), seconds("1:30"), seconds("UNLIMITED")
    (93600.0, 5400.0, 90.0, None)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2}(?:\.\d+)?)", clock.strip())
    if match is None:
        return None
    parts = [float(part) for part in match[2].split(":")]
    if match[1]:
        hours, mins, secs = [*parts, 0.0, 0.0][:3]
    else:
        hours, mins, secs = {1: [0.0, *parts, 0.0], 2: [0.0, *parts], 3: parts}[len(parts)]
    return int(match[1] or 0) * 86400 + hours * 3600 + mins * 60 + secs
