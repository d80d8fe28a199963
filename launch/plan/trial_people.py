"""The people that the trials of a tuning forget, and the models that these trials need.

Settings that were chosen on the people whom the comparison forgets would fit them. Where the seeds
of a comparison draw people, the trials forget a draw that no seed of it has, against a Retrained
that was trained without that draw. Elsewhere, and with nomus, the people of the comparison serve.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from .comparison import (
    Comparison,
    draws_of,
    measurement_run,
    model_label,
    people_of,
    training_run,
)
from .runs import Run

FIRST_DRAW = 1_000_000
"""The draw of compare.tune_seed=0; comparisons seldom have a seed so high. Where a comparison has
it, the next free seed is taken."""

Pair = tuple[int, int]


def tuning_pairs(comparison: Comparison) -> list[Pair]:
    """Return the (train seed, seed) pairs that trials run on."""
    return comparison.pairs[: comparison.compare.tune_seeds]


def trial_draws(comparison: Comparison) -> dict[Pair, int]:
    """Return the seeds of the draws that trials forget, by pair; empty: the comparison's draws."""
    forget = comparison.configs[0].forget
    drawn = forget.fraction is not None and forget.seed is None and not forget.published
    if not (comparison.compare.tune and drawn and comparison.objective.needs_retrained):
        return {}
    taken = {seed for pair in comparison.pairs for seed in pair}
    free = (s for s in itertools.count(FIRST_DRAW + comparison.compare.tune_seed) if s not in taken)
    return dict(zip(tuning_pairs(comparison), free, strict=False))


def tuning_models(comparison: Comparison) -> list[Run]:
    """Return the trainings of Retrained without each draw of the trials."""
    return [
        _for_tuning(comparison, training_run(comparison, "retrained", train_seed, draw))
        for (train_seed, _), draw in trial_draws(comparison).items()
    ]


def tuning_measurements(comparison: Comparison) -> list[Run]:
    """Return the measurements of Original on each draw of the trials: how good doing nothing is."""
    return [
        _for_tuning(
            comparison,
            measurement_run(
                training_run(comparison, "original", train_seed, None),
                draw,
                comparison.metrics_seeds[0],
            ),
        )
        for (train_seed, _), draw in trial_draws(comparison).items()
    ]


def _for_tuning(comparison: Comparison, run: Run) -> Run:
    placed = replace(run.config.run, root=str(comparison.out / "tuning"))
    always = comparison.objective.resurfaces
    metrics = replace(run.config.metrics, resurface_always=always)
    return replace(run, settings=replace(run.config, run=placed, metrics=metrics), tuning=True)


def original_of(comparison: Comparison, trial: Run) -> str:
    """Return the label of the run that measured Original on the people whom a trial forgets."""
    people, at_training = people_of(trial), draws_of(comparison)[trial.train_seed][0]
    return model_label("original", trial.train_seed, None if people == at_training else people)
