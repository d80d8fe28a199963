"""Equal tuning: every method gets the same number of trials, judged on val before the comparison.

These are the trials of `dlfd search search=random` with the same seed: settings, order and trial 0,
which has the method's own. They run on the comparison's workers and seeds, and need no Ray. No
figure of the test set is read here. Settings are taken that did better than leaving the model as
it is; where no trial did, the method keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import JobConfig, Space, draw_from, search_space, used_space

from .comparison import (
    Comparison,
    forgetting,
    parents_of,
    placed,
    seeded,
    setting_of,
    with_settings,
)
from .race import Against, Race, Trial, chosen_trial
from .runs import Run
from .spaces import fitted_space
from .trial_people import original_of, trial_draws, tuning_pairs


def searched(config: JobConfig, given: frozenset[str]) -> Space:
    """Return the settings that are drawn, with their ranges; settings of the user are not drawn."""
    space = fitted_space(used_space(config.method), config)
    return {name: values for name, values in space.items() if name not in given}


def plan_trials(comparison: Comparison) -> list[Trial]:
    """Return the trials of every method that has something to search, on the same seeds."""
    return [
        _trial(comparison, config, number)
        for config in comparison.configs
        if searched(config, comparison.given)
        for number in range(comparison.compare.tune)
    ]


def _trial(comparison: Comparison, config: JobConfig, number: int) -> Trial:
    space = searched(config, comparison.given)
    if number > 0:
        drawn = draw_from(space, config.method.name, number, comparison.compare.tune_seed)
        config = with_settings(config, drawn)
    settings = {name: setting_of(config, name) for name in space}
    runs = tuple(_run(comparison, config, number, *pair) for pair in tuning_pairs(comparison))
    against = tuple(
        Against(run.label, original_of(comparison, run), parents_of(run)[1]) for run in runs
    )
    return Trial(config.run.name, settings, against, runs)


def _run(comparison: Comparison, config: JobConfig, number: int, train_seed: int, seed: int) -> Run:
    label = seeded(f"{config.run.name} trial {number}", train_seed, seed)
    name = seeded(f"{config.run.name}-trial{number}", train_seed, seed, sep="-").replace(" ", "-")
    variant = config.run.name.removeprefix(config.method.name).strip()
    draw = trial_draws(comparison).get((train_seed, seed))
    config = forgetting(placed(config, comparison.out / "tuning", name), draw)
    if not comparison.objective.resurfaces:
        # Resurfacing takes as long as an unlearning, and no trial is judged by it.
        config = with_settings(config, {"metrics.resurface_steps": 0})
    return Run(label, "trial", train_seed, replace(config, seed=seed), variant, draw)


def trial_runs(trials: Sequence[Trial]) -> list[Run]:
    return [run for trial in trials for run in trial.runs]


def judged(
    comparison: Comparison, trials: Sequence[Trial], done: Mapping[str, Path]
) -> list[Trial]:
    """Return the trials with the values that their runs reached on val.

    Parameters
    ----------
    done : run directories by label, of the trials and of the models they are held against
    """
    return [trial.judged(comparison.objective, done) for trial in trials]


def races_of(comparison: Comparison, trials: Sequence[Trial]) -> dict[str, Race]:
    """Return the race of each method, by its title."""
    titles = dict.fromkeys(trial.name for trial in trials)
    return {title: race_of(comparison, [t for t in trials if t.name == title]) for title in titles}


def race_of(comparison: Comparison, trials: Sequence[Trial]) -> Race:
    """Return the race of the trials of one method."""
    config = next(c for c in comparison.configs if c.run.name == trials[0].name)
    given = sorted(comparison.given & search_space(config.method.name).keys())
    return Race(
        comparison.compare.objective,
        {name: str(values) for name, values in searched(config, comparison.given).items()},
        {name: setting_of(config, name) for name in given},
        [replace(trial, runs=()) for trial in trials],
    )


def tuned_configs(comparison: Comparison, trials: Sequence[Trial]) -> list[JobConfig]:
    """Return every method with the settings chosen for it, or its own where no trial was better
    than leaving the model as it is; a method whose trials all failed is left out."""
    objective, tuned = comparison.objective, []
    for config in comparison.configs:
        own = [trial for trial in trials if trial.name == config.run.name]
        best = chosen_trial(own, objective)
        if best is not None:
            tuned.append(with_settings(config, best.settings))
        elif not own or any(trial.value is not None for trial in own):
            tuned.append(config)
    return tuned


def tuning_record(comparison: Comparison, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what was tried, on whom, and what was chosen, for comparison.json.

    `draws` are the seeds of the people whom the trials forgot, per pair; empty where these are the
    people of the comparison.
    """
    return {
        "trials": comparison.compare.tune,
        "seed": comparison.compare.tune_seed,
        "pairs": tuning_pairs(comparison),
        "draws": list(trial_draws(comparison).values()),
        "objective": comparison.objective.title,
        "methods": {title: race.record() for title, race in races_of(comparison, trials).items()},
    }
