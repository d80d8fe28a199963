"""The settings that the trials of a comparison chose.

The runs of a tuned method begin when all its trials have ended. In a campaign the first run that
asks decides, and the others take the settings of its file: a trial that is repeated later changes
none that others already run with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import JobConfig
from dlfd_dist.errors import DlfdError
from dlfd_dist.run_dir import holding, write_json

from ..execute.journal import RUN_WAIT_S, Ledger
from ..execute.states import directories_of
from ..plan.comparison import with_models, with_settings
from ..plan.race import Race
from ..plan.runs import Plan, Run, choice_file, read_plan


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
        if _chose_nothing(record):
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
    return _record(plan, run, {plan.by_key[key].label: path for key, path in finished.items()})


def _record(plan: Plan, run: Run, done: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the trials before a run chose, from the directories by label."""
    return Race.read(plan.for_finisher["races"][run.title]).judged(done).record()


def _chose_nothing(record: Mapping[str, Any]) -> bool:
    """Whether no trial finished; where none gained, the method keeps its own settings."""
    return record["settings"] is None and not record["no_gain"]


def choices_of(campaign: Path, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the trials of a campaign chose, by the title of the runs that wait for them."""
    files = {run.title: choice_file(campaign, run) for run in runs if run.after}
    return {
        title: json.loads(file.read_text(encoding="utf-8"))
        for title, file in files.items()
        if file.is_file()
    }


@dataclass(frozen=True)
class Choices:
    """What the trials of a plan chose, where the runs of the plan are carried out here."""

    plan: Plan
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the title of the runs that wait for the trials."""

    def ready(self, run: Run, done: Mapping[str, Path]) -> Run | None:
        """Return a run with its models, and with the settings that its method's trials chose.

        None where a model is missing or no trial finished.

        Parameters
        ----------
        done : directories of the finished runs by label
        """
        if not run.parents:
            return run
        if run.after:
            if run.title not in self.records:
                self.records[run.title] = _record(self.plan, run, done)
            record = self.records[run.title]
            if _chose_nothing(record):
                return None
            run = run.with_config(with_settings(run.config, record["settings"] or {}))
        return next(iter(with_models([run], done)), None)
