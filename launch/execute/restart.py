"""RUN_DIR/submit.sbatch: a job that goes on with one run, from its directory alone."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlfd_dist.run_dir import RunDir, write_text
from dlfd_dist.runtime.env import STARTS_BEFORE

from ..plan.runs import Run, campaign_name, read_plan
from ..plan.shape import LaunchSpec
from .batch import BatchJob


def make_restartable(
    campaign: Path, run: Run, run_dir: RunDir, record: Mapping[str, Any], *, starts: int
) -> None:
    """Put into a run directory what goes on with the run alone, and which code the run has.

    Parameters
    ----------
    starts : of the run until now, for the number of restarts in its result
    """
    text = restart_script(campaign, run, run_dir, record, starts)
    write_text(run_dir.path / "submit.sbatch", text)
    for file in ("code.json", "code.diff"):
        with contextlib.suppress(FileNotFoundError, shutil.SameFileError):
            shutil.copyfile(campaign / file, run_dir.path / file)


def restart_script(
    campaign: Path, run: Run, run_dir: RunDir, record: Mapping[str, Any], starts: int
) -> str:
    """Return a batch script that starts `python -m dlfd_dist RUN_DIR/config.yaml` on each rank.

    A script of submitit's could not be sent by hand: its pickle is named by the id of its job.
    """
    plan = read_plan(campaign, record["plan"])
    job = BatchJob(
        run_dir.logs, f"dlfd-{campaign_name(campaign)}-run-{run.key}", run.label,
        LaunchSpec() if run.spec.packed else run.spec, plan.cluster,
        directory=record["directory"], code=Path(record["code"]) if record["code"] else None,
        exports=[f'{STARTS_BEFORE}="$(({starts} + ${{SLURM_RESTART_COUNT:-0}}))"'],
    )  # fmt: skip
    if run.role == "search":
        command = job.module("launch.search.job", *plan.words)
    else:
        command = job.module("dlfd_dist", str(run_dir.config))
    return job.executor().text(command)
