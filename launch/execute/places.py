"""Where the jobs of a campaign keep their files."""

from __future__ import annotations

from pathlib import Path

from .process import is_local


def job_folder(campaign: Path) -> Path:
    """Return submitit's folder: scripts, pickled tasks, results and logs, named by job id."""
    return campaign / "jobs" / "submitit"


def job_log(campaign: Path, job: str, job_id: str, index: int | None = None) -> Path:
    """Return the log of a task: of its rank 0, and of its batch script.

    Parameters
    ----------
    job : name of the job within the campaign, such as 01-001-train
    index : of the task, where a job on this machine has several
    """
    if is_local(job_id):
        return campaign / "jobs" / (f"{job}.out" if index is None else f"{job}_{index}.out")
    return job_folder(campaign) / f"{job_id}_0_log.out"


def rank_logs(log: Path) -> list[Path]:
    """Return the logs of all ranks of the task whose log is given, rank 0 first."""
    head, mark, tail = log.name.rpartition("_0_log.out")
    if not mark or tail:
        return [log]
    others = log.parent.glob(f"{head}_*_log.out")
    return [log, *sorted(path for path in others if path != log)]
