"""Equal tuning: every method gets the same number of trials, judged on val before the comparison.

These are the trials of `dlfd search search=random` with the same seed: settings, order and trial 0,
which has the method's own. They run on the comparison's workers and seeds, and need no Ray. No
figure of the test set is read here. Settings are taken that did better than leaving the model as
it is; where no trial did, the method keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dlfd_dist.config import JobConfig, Space, draw_from, search_space, used_space
from dlfd_dist.objectives import OBJECTIVES, Objective
from dlfd_dist.run_dir import RunDir

from ..spaces import fitted_space
from .planning import Plan, Planned, placed, seeded, with_settings
from .trial_people import (
    on_people_of_trials,
    trial_draws,
    tuning_pairs,
    untouched_value,
    value_of,
)


@dataclass(frozen=True)
class Trial:
    """One trial of a method and, once it has run, what it was worth on val."""

    name: str
    """Of the method or its variant."""
    settings: dict[str, Any]
    """The values of the settings that are searched."""
    runs: tuple[Planned, ...]
    """One per pair of seeds that it is judged on."""
    value: float | None = None
    """The mean over the runs; None: one of them did not finish."""
    left_as_is: bool = False
    """Whether it left the model as it is, on one of its seeds or more; it is then never chosen."""
    untouched: float | None = None
    """What Original is worth on the same people."""


def searched(config: JobConfig, given: frozenset[str]) -> Space:
    """Return the settings that are drawn and their ranges; one the user gave is not drawn."""
    space = fitted_space(used_space(config.method), config)
    return {name: values for name, values in space.items() if name not in given}


def plan_trials(plan: Plan) -> list[Trial]:
    """Return the trials of every method that has something to search, on the same seeds."""
    return [
        _trial(plan, config, number)
        for config in plan.configs
        if searched(config, plan.given)
        for number in range(plan.compare.tune)
    ]


def _trial(plan: Plan, config: JobConfig, number: int) -> Trial:
    space = searched(config, plan.given)
    if number > 0:
        drawn = draw_from(space, config.method.name, number, plan.compare.tune_seed)
        config = with_settings(config, drawn)
    settings = {name: _value(config, name) for name in space}
    runs = tuple(_run(plan, config, number, *pair) for pair in tuning_pairs(plan))
    return Trial(config.run.name, settings, runs)


def _run(plan: Plan, config: JobConfig, number: int, train_seed: int, seed: int) -> Planned:
    label = seeded(f"{config.run.name} trial {number}", train_seed, seed)
    name = seeded(f"{config.run.name}-trial{number}", train_seed, seed, sep="-").replace(" ", "-")
    variant = config.run.name.removeprefix(config.method.name).strip()
    draw = trial_draws(plan).get((train_seed, seed))
    config = on_people_of_trials(placed(config, plan.out / "tuning", name), draw)
    return Planned(label, "trial", train_seed, replace(config, seed=seed), variant, draw)


def _value(config: JobConfig, setting: str) -> Any:
    section, name = setting.split(".")
    return getattr(getattr(config, section), name)


def trial_runs(trials: Sequence[Trial]) -> list[Planned]:
    return [run for trial in trials for run in trial.runs]


def judged(plan: Plan, trials: Sequence[Trial], done: Mapping[str, Path]) -> list[Trial]:
    """Return the trials with the values that their runs reached on val.

    Parameters
    ----------
    done : run directories by label, of the trials and of the models they are held against
    """
    return [_judged(plan, trial, done) for trial in trials]


def _judged(plan: Plan, trial: Trial, done: Mapping[str, Path]) -> Trial:
    labels = [run.label for run in trial.runs]
    untouched = untouched_value(plan, trial.runs, done)
    if untouched is None or not all(label in done for label in labels):
        return replace(trial, value=None, untouched=untouched)
    value = fmean(value_of(plan, run.label, run, done) for run in trial.runs)
    still = any(_left_as_is(done[label]) for label in labels)
    return replace(trial, value=value, left_as_is=still, untouched=untouched)


def _left_as_is(path: Path) -> bool:
    """Return whether a run moved nothing; one of an older version does not say so."""
    return bool((RunDir(path).read_result().get("against_original") or {}).get("left_as_is"))


def best_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """Return the best trial that moved its model, the first of equals; None if there is none."""
    moved = [t for t in trials if t.value is not None and not t.left_as_is]
    return min(moved, key=lambda trial: objective.sign * (trial.value or 0.0), default=None)


def chosen_trial(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """Return the best trial where it did better than leaving the model as it is, else None."""
    best = best_trial(trials, objective)
    if best is None or best.value is None or best.untouched is None:
        return None
    return best if objective.is_better(best.value, best.untouched) else None


def tuned_configs(plan: Plan, trials: Sequence[Trial]) -> list[JobConfig]:
    """Return every method with the settings chosen for it, or its own where no trial was better
    than leaving the model as it is; one whose trials all failed is left out."""
    objective, tuned = OBJECTIVES[plan.compare.objective], []
    for config in plan.configs:
        own = [trial for trial in trials if trial.name == config.run.name]
        best = chosen_trial(own, objective)
        if best is not None:
            tuned.append(with_settings(config, best.settings))
        elif not own or any(trial.value is not None for trial in own):
            tuned.append(config)
    return tuned


def tuning_record(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what was tried, on whom, and what was chosen, for comparison.json.

    `draws` are the seeds of the people whom the trials forgot, per pair; empty where these are the
    people of the comparison.
    """
    names = dict.fromkeys(trial.name for trial in trials)
    return {
        "trials": plan.compare.tune,
        "seed": plan.compare.tune_seed,
        "pairs": tuning_pairs(plan),
        "draws": list(trial_draws(plan).values()),
        "objective": OBJECTIVES[plan.compare.objective].title,
        "methods": {n: method_record(plan, [t for t in trials if t.name == n]) for n in names},
    }


def method_record(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what was tried for one method, and what was chosen.

    `settings` is None where nothing was: `no_gain` says that trials finished and none did better
    than leaving the model as it is. `value` is that of the best trial which moved its model.
    """
    config, objective = trials[0].runs[0].config, OBJECTIVES[plan.compare.objective]
    best, chosen = best_trial(trials, objective), chosen_trial(trials, objective)
    given = sorted(plan.given & search_space(config.method.name).keys())
    finished = [trial for trial in trials if trial.value is not None]
    return {
        "settings": chosen.settings if chosen else None,
        "no_gain": bool(finished) and chosen is None,
        "value": best.value if best else None,
        "default_value": trials[0].value,
        "untouched_value": trials[0].untouched,
        "searched": {name: str(values) for name, values in searched(config, plan.given).items()},
        "given": {name: _value(config, name) for name in given},
        "failed": len(trials) - len(finished),
        "left_as_is": sum(trial.left_as_is for trial in trials),
        "trials": [
            {"settings": t.settings, "value": t.value, "left_as_is": t.left_as_is} for t in trials
        ],
    }
