"""Equal tuning: every method gets the same number of trials, judged on val before the comparison.

These are the trials of `dlfd search search=random` with the same seed: settings, order and trial 0,
which has the method's own. They run on the comparison's workers and seeds, and need no Ray. No
figure of the test set is read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dlfd_dist.config import JobConfig, Space, draw_from, search_space, used_space
from dlfd_dist.metrics.gap import gap_on_val
from dlfd_dist.run_dir import RunDir

from .planning import Plan, Planned, parents_of, placed, seeded, with_settings

TITLES = {"nomus": "validation NoMUS", "gap": "gap to Retrained on validation"}


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


def searched(config: JobConfig, given: frozenset[str]) -> Space:
    """Return the settings that are drawn and their ranges; one the user gave is not drawn."""
    space = used_space(config.method.name, config.method.select)
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
    runs = tuple(_run(plan, config, number, *pair) for pair in _pairs(plan))
    return Trial(config.run.name, settings, runs)


def _run(plan: Plan, config: JobConfig, number: int, train_seed: int, seed: int) -> Planned:
    label = seeded(f"{config.run.name} trial {number}", train_seed, seed)
    name = seeded(f"{config.run.name}-trial{number}", train_seed, seed, sep="-").replace(" ", "-")
    variant = config.run.name.removeprefix(config.method.name).strip()
    config = placed(config, plan.out / "tuning", name)
    return Planned(label, "trial", train_seed, replace(config, seed=seed), variant)


def _pairs(plan: Plan) -> list[tuple[int, int]]:
    return plan.pairs[: plan.compare.tune_seeds]


def _value(config: JobConfig, setting: str) -> Any:
    section, name = setting.split(".")
    return getattr(getattr(config, section), name)


def trial_runs(trials: Sequence[Trial]) -> list[Planned]:
    return [run for trial in trials for run in trial.runs]


def judged(
    trials: Sequence[Trial], done: Mapping[str, Path], models: Mapping[str, Path], objective: str
) -> list[Trial]:
    """Return the trials with the values that their runs reached on val.

    Parameters
    ----------
    done, models : run directories by label, of the trials and of Original and Retrained
    """

    def value(trial: Trial) -> float | None:
        if any(run.label not in done for run in trial.runs):
            return None
        return fmean(_on_val(run, done[run.label], models, objective) for run in trial.runs)

    return [replace(trial, value=value(trial)) for trial in trials]


def _on_val(run: Planned, path: Path, models: Mapping[str, Path], objective: str) -> float:
    result = _read(path)
    if objective == "nomus":
        return result["validation"]["nomus"]
    retrained = _read(models[parents_of(run)[1]])
    own, reference = ({**one, **one["validation"]} for one in (result, retrained))
    return gap_on_val(own, reference)


def _read(run: Path) -> dict[str, Any]:
    return json.loads(RunDir(run).result.read_text(encoding="utf-8"))


def best_trial(trials: Sequence[Trial], objective: str) -> Trial | None:
    """Return the best trial, the first of equals; None if none finished."""
    finished = [trial for trial in trials if trial.value is not None]
    pick = min if objective == "gap" else max
    return pick(finished, key=lambda trial: trial.value or 0.0, default=None)


def tuned_configs(plan: Plan, trials: Sequence[Trial]) -> list[JobConfig]:
    """Return every method with its best settings; one whose trials all failed is left out."""
    tuned = []
    for config in plan.configs:
        own = [trial for trial in trials if trial.name == config.run.name]
        best = best_trial(own, plan.compare.objective)
        if best is not None:
            tuned.append(with_settings(config, best.settings))
        elif not own:
            tuned.append(config)
    return tuned


def tuning_record(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what was tried, on what, and what was chosen, for comparison.json."""
    names = dict.fromkeys(trial.name for trial in trials)
    return {
        "trials": plan.compare.tune,
        "seed": plan.compare.tune_seed,
        "pairs": _pairs(plan),
        "objective": TITLES[plan.compare.objective],
        "methods": {n: method_record(plan, [t for t in trials if t.name == n]) for n in names},
    }


def method_record(plan: Plan, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what was tried for one method, and what was chosen."""
    config = trials[0].runs[0].config
    best = best_trial(trials, plan.compare.objective)
    given = sorted(plan.given & search_space(config.method.name).keys())
    return {
        "settings": best.settings if best else None,
        "value": best.value if best else None,
        "default_value": trials[0].value,
        "searched": {name: str(values) for name, values in searched(config, plan.given).items()},
        "given": {name: _value(config, name) for name in given},
        "failed": sum(trial.value is None for trial in trials),
        "trials": [{"settings": t.settings, "value": t.value} for t in trials],
    }
