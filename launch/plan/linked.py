"""The plans of a comparison and of an audit: every run names the runs that it waits for.

The key of a run is its label here; `check` gives a run that is submitted its signature as key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dlfd_dist.config import ClusterConfig, to_dict

from .audit import Audit, trainings, unlearnings
from .comparison import (
    Comparison,
    measurement_runs,
    parents_of,
    training_runs,
    unlearning_runs,
)
from .contrasts import named_contrasts
from .race import Race
from .runs import Plan, Run
from .trial_people import tuning_measurements, tuning_models
from .tuning import tuning_record


def comparison_plan(
    comparison: Comparison, races: Mapping[str, Race], verb: str = "compare",
    words: Sequence[str] = (), cluster: ClusterConfig | None = None,
) -> Plan:  # fmt: skip
    """Return the trainings, the trials, what is measured of the trainings, and the methods.

    Every run of a method waits for the end of the method's trials, which choose its settings.

    Parameters
    ----------
    races : the trials of the methods that are tuned, by the name of the method's runs
    cluster : where the runs are submitted to; None: this machine
    """
    measurements = [*measurement_runs(comparison), *tuning_measurements(comparison)]
    judges = {
        pair.original for race in races.values() for trial in race.trials for pair in trial.against
    }
    measured = [run.label for run in measurements if run.label in judges]
    trials = [run for race in races.values() for run in race.runs]
    models = [*training_runs(comparison), *tuning_models(comparison)]
    runs = _linked([*models, *trials, *measurements])
    for run in unlearning_runs(comparison):
        race = races.get(run.title)
        runs += _linked([run], [*(trial.label for trial in race.runs), *measured] if race else ())
    for_finisher = {
        "contrasts": named_contrasts(comparison),
        "tuning": tuning_record(comparison, {}),
        "races": {name: race.values() for name, race in races.items()},
    }
    return Plan(
        comparison.out, verb, list(words), cluster or ClusterConfig(), runs, "comparison",
        for_finisher, comparison.left_out,
    )  # fmt: skip


def audit_plan(
    audit: Audit, words: Sequence[str] = (), cluster: ClusterConfig | None = None
) -> Plan:
    """Return the trainings of an audit and the unlearnings, each shadow by shadow."""
    runs = _linked([*trainings(audit), *unlearnings(audit)])
    for_finisher = {"kind": audit.kind, "audit": to_dict(audit.settings)}
    return Plan(
        audit.out, "audit", list(words), cluster or ClusterConfig(), runs, "audit", for_finisher,
        audit.comparison.left_out,
    )  # fmt: skip


def _linked(runs: Iterable[Run], after: Iterable[str] = ()) -> list[Run]:
    return [
        replace(
            run, key=run.label, parents=() if run.trains else parents_of(run), after=tuple(after)
        )
        for run in runs
    ]
