"""Equal tuning: every method gets the same number of trials, judged on val before the comparison.

These are the trials of `dlfd search search=random` with the same seed: settings, order and trial 0,
which has the method's own. They run on the comparison's workers and seeds, and need no Ray. No
figure of the test set is read here. Settings are taken that did better than leaving the model as
it is; where no trial did, the method keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from .race import Against, Race, Trial
from .runs import Run
from .spaces import fitted_space
from .trial_people import (
    original_of,
    trial_draws,
    tuning_pairs,
)


def searched(config: JobConfig, given: frozenset[str]) -> Space:
    """Return the settings that are drawn, with their ranges; settings of the user are not drawn."""
    space = fitted_space(used_space(config.method), config)
    return {name: values for name, values in space.items() if name not in given}


def races_of(comparison: Comparison) -> dict[str, Race]:
    """Return the trials of every method that has something to search, by the name of its runs.

    All of them run on the same seeds.
    """
    if not comparison.compare.tune:
        return {}
    return {
        config.run.name: _race(comparison, config, space)
        for config in comparison.configs
        if (space := searched(config, comparison.given))
    }


def _race(comparison: Comparison, config: JobConfig, space: Space) -> Race:
    given = sorted(comparison.given & search_space(config.method.name).keys())
    return Race(
        comparison.compare.objective,
        {name: str(values) for name, values in space.items()},
        {name: setting_of(config, name) for name in given},
        [_trial(comparison, config, space, n) for n in range(comparison.compare.tune)],
    )


def _trial(comparison: Comparison, config: JobConfig, space: Space, number: int) -> Trial:
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


def tuning_record(comparison: Comparison, races: Mapping[str, Race]) -> dict[str, Any] | None:
    """Return what was tried, on whom, and what was chosen, for comparison.json.

    None where nothing is tuned. `draws` are the seeds of the people whom the trials forgot, per
    pair; empty where these are the people of the comparison.
    """
    if not comparison.compare.tune:
        return None
    return {
        "trials": comparison.compare.tune,
        "seed": comparison.compare.tune_seed,
        "pairs": tuning_pairs(comparison),
        "draws": list(trial_draws(comparison).values()),
        "objective": comparison.objective.title,
        "methods": {name: race.record() for name, race in races.items()},
    }
