"""Which settings the trials of a submitted comparison chose, decided once, by the first who asks.

The runs of a tuned method begin when all its trials have ended, and every one of them takes the
settings of the same file: a trial that is repeated later changes none that others already run with.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.run_dir import RunDir, write_json

from ..execute.journal import Ledger
from ..execute.states import directories_of
from ..plan.compare import with_settings
from ..plan.race import Race
from ..plan.runs import CampaignRun, choice_file, read_plan, title_of


def tuned(campaign: Path, plan: str, run: CampaignRun, config: JobConfig) -> JobConfig:
    """Return the configuration of a run with the settings that its method's trials chose.

    It stays as it is where no trial did better than leaving the model as it is.

    Parameters
    ----------
    plan : name of the plan file under CAMPAIGN/plans
    """
    file = choice_file(campaign, run)
    if not file.is_file():
        record = _choice(campaign, plan, run)
        if record["settings"] is None and not record["no_gain"]:
            raise DlfdError(
                f"none of the {len(record['trials'])} trials of {title_of(run)} finished, so that "
                f"nothing was chosen: 'dlfd status {campaign}' says why, and 'dlfd retry "
                f"{campaign} --failed' repeats them."
            )
        _write_once(file, record)
    return with_settings(config, json.loads(file.read_text(encoding="utf-8"))["settings"] or {})


def _choice(campaign: Path, plan: str, run: CampaignRun) -> dict[str, Any]:
    values, runs = read_plan(campaign / "plans" / plan)
    places = directories_of(campaign, Ledger(campaign), runs)
    done = {
        one.label: Path(places[one.key])
        for one in runs
        if one.key in places and RunDir(Path(places[one.key])).finished()
    }
    race = Race.read(values["later"]["races"][title_of(run)])
    return race.judged(done).record()


def _write_once(file: Path, record: dict[str, Any]) -> None:
    """Write a file whole, unless another job was faster."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".choice") as folder:
        made = Path(folder) / file.name
        write_json(made, record)
        with contextlib.suppress(FileExistsError):
            os.link(made, file)


def chosen(
    campaign: Path, tuning: Mapping[str, Any] | None, runs: Sequence[CampaignRun]
) -> dict[str, Any] | None:
    """Return what was tried and chosen, for comparison.json; None where nothing was tuned.

    Parameters
    ----------
    tuning : what the plan says of the trials, without the methods
    """
    if tuning is None:
        return None
    files = {title_of(run): choice_file(campaign, run) for run in runs if run.after}
    return {
        **tuning,
        "methods": {
            title: json.loads(file.read_text(encoding="utf-8"))
            for title, file in files.items()
            if file.is_file()
        },
    }
