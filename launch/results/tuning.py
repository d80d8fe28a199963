"""The settings that the trials of a submitted comparison chose; the first run that asks decides.

The runs of a tuned method begin when all its trials have ended, and every one of them takes the
settings of the same file: a trial that is repeated later changes none that others already run with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.run_dir import holding, write_json

from ..execute.journal import RUN_WAIT_S, Ledger
from ..execute.states import directories_of
from ..plan.comparison import with_settings
from ..plan.race import Race
from ..plan.runs import Run, choice_file, read_plan


def tuned(campaign: Path, plan_name: str, run: Run, config: JobConfig) -> JobConfig:
    """Return the configuration of a run with the settings that its method's trials chose.

    It stays as it is where no trial did better than leaving the model as it is.

    Parameters
    ----------
    plan_name : of the file under CAMPAIGN/plans
    """
    file = choice_file(campaign, run)
    if not file.is_file():
        record = _choice(campaign, plan_name, run)
        if record["settings"] is None and not record["no_gain"]:
            raise DlfdError(
                f"none of the {len(record['trials'])} trials of {run.title} finished, so that "
                f"nothing was chosen: 'dlfd status {campaign}' says why, and 'dlfd retry "
                f"{campaign} --failed' repeats them."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        message = f"{file} is locked by another job ({{holder}}): start this one again."
        with holding(file.with_suffix(".lock"), message, wait_s=RUN_WAIT_S):
            if not file.is_file():
                write_json(file, record)
    return with_settings(config, json.loads(file.read_text(encoding="utf-8"))["settings"] or {})


def _choice(campaign: Path, plan_name: str, run: Run) -> dict[str, Any]:
    plan = read_plan(campaign, plan_name)
    places = directories_of(campaign, Ledger(campaign), plan.runs)
    finished = replace(plan, directories=places).finished()
    done = {plan.by_key[key].label: path for key, path in finished.items()}
    race = Race.read(plan.for_finisher["races"][run.title])
    return race.judged(done).record()


def chosen(
    campaign: Path, tuning: Mapping[str, Any] | None, runs: Sequence[Run]
) -> dict[str, Any] | None:
    """Return what was tried and chosen, for comparison.json; None where nothing was tuned.

    Parameters
    ----------
    tuning : what the plan says of the trials, without the methods
    """
    if tuning is None:
        return None
    files = {run.title: choice_file(campaign, run) for run in runs if run.after}
    return {
        **tuning,
        "methods": {
            title: json.loads(file.read_text(encoding="utf-8"))
            for title, file in files.items()
            if file.is_file()
        },
    }
