"""RUN_DIR/submit.sbatch: a job that goes on with one run, from its directory alone."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlfd_dist.compose import cluster_from_dict
from dlfd_dist.run_dir import RunDir, write_text
from dlfd_dist.runtime.env import STARTS_BEFORE

from ..plan.runs import CampaignRun, campaign_name
from ..plan.shape import LaunchSpec
from .batch import BatchJob


def make_restartable(
    campaign: Path, run: CampaignRun, run_dir: RunDir, record: Mapping[str, Any], *, starts: int
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
    campaign: Path, run: CampaignRun, run_dir: RunDir, record: Mapping[str, Any], starts: int
) -> str:
    """Return a batch script that starts `python -m dlfd_dist RUN_DIR/config.yaml` on each rank.

    A script of submitit's could not be sent by hand: its pickle is named by the id of its job.
    """
    plan = json.loads((campaign / "plans" / record["plan"]).read_text(encoding="utf-8"))
    job = BatchJob(
        run_dir.logs, f"dlfd-{campaign_name(campaign)}-run-{run.key}", run.label,
        LaunchSpec() if run.spec.packed else run.spec, cluster_from_dict(plan["cluster"]),
        directory=record["directory"], code=Path(record["code"]) if record["code"] else None,
        exports=[f'{STARTS_BEFORE}="$(({starts} + ${{SLURM_RESTART_COUNT:-0}}))"'],
    )  # fmt: skip
    if run.role == "search":
        command = job.module("launch.search.job", *plan["words"])
    else:
        command = job.module("dlfd_dist", str(run_dir.config))
    return job.executor().text(command)
