"""A job that does one run of a campaign again: RUN_DIR/submit.sbatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlfd_dist.compose import cluster_from_dict

from .batches import Batch
from .plan import Campaign, CampaignRun
from .sbatch import Script
from .spec import LaunchSpec


def single_run(
    campaign: Path, run: CampaignRun, record: Mapping[str, Any]
) -> tuple[str, str, dict[str, Any]]:
    """Return name, batch script and job file of a job that does this run alone."""
    from .submit import job_record

    plan = json.loads((campaign / "plans" / record["plan"]).read_text(encoding="utf-8"))
    cluster = cluster_from_dict(plan["cluster"])
    spec = LaunchSpec() if run.spec.packed else run.spec
    batch = Batch(f"run-{run.key}", ((run.key,),), spec, title=run.label)
    code = Path(record["code"]) if record["code"] else None
    script = Script(
        campaign, Campaign(campaign, "", [], cluster, []).name, batch.name, run.label, spec,
        cluster, directory=record["directory"], code=code,
    )  # fmt: skip
    return batch.name, script.text(), job_record(record["plan"], script, batch)
