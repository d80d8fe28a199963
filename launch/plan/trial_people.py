"""Whom the trials of a tuning forget: a draw of their own, and the models that it needs.

Settings that were chosen on the people whom the comparison forgets would fit them. Where the seeds
of a comparison draw people, the trials forget a draw that no seed of it has, against a Retrained
that was trained without that draw. Elsewhere, and with nomus, the people of the comparison serve.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from dlfd_dist.config import JobConfig
from dlfd_dist.objectives import OBJECTIVES

from .compare import draws_of, measurement_run, model_label, people_of, training_run
from .runs import Plan, Planned

FIRST_DRAW = 1_000_000
"""The draw of compare.tune_seed=0; comparisons seldom have a seed so high, and where one does the
next is taken."""

Pair = tuple[int, int]


def tuning_pairs(plan: Plan) -> list[Pair]:
    """Return the (train seed, seed) pairs that trials run on."""
    return plan.pairs[: plan.compare.tune_seeds]


def trial_draws(plan: Plan) -> dict[Pair, int]:
    """Return the seed of the people whom trials forget, by pair; empty where they have no own."""
    forget = plan.configs[0].forget
    drawn = forget.fraction is not None and forget.seed is None and not forget.published
    if not (plan.compare.tune and drawn and OBJECTIVES[plan.compare.objective].needs_retrained):
        return {}
    taken = {seed for pair in plan.pairs for seed in pair}
    free = (s for s in itertools.count(FIRST_DRAW + plan.compare.tune_seed) if s not in taken)
    return dict(zip(tuning_pairs(plan), free, strict=False))


def tuning_models(plan: Plan) -> list[Planned]:
    """Return the trainings of Retrained without each draw of the trials."""
    return [
        _for_tuning(plan, training_run(plan, "retrained", train_seed, draw))
        for (train_seed, _), draw in trial_draws(plan).items()
    ]


def tuning_measurements(plan: Plan) -> list[Planned]:
    """Return Original measured on each draw of the trials: what doing nothing is worth there."""
    return [
        _for_tuning(
            plan,
            measurement_run(
                training_run(plan, "original", train_seed, None), draw, plan.metrics_seeds[0]
            ),
        )
        for (train_seed, _), draw in trial_draws(plan).items()
    ]


def _for_tuning(plan: Plan, one: Planned) -> Planned:
    run = replace(one.config.run, root=str(plan.out / "tuning"))
    always = OBJECTIVES[plan.compare.objective].resurfaces
    metrics = replace(one.config.metrics, resurface_always=always)
    return replace(one, config=replace(one.config, run=run, metrics=metrics), tuning=True)


def original_of(plan: Plan, trial: Planned) -> str:
    """Return the label of the run that measured Original on the people whom a trial forgets."""
    people, at_training = people_of(trial), draws_of(plan)[trial.train_seed][0]
    return model_label("original", trial.train_seed, None if people == at_training else people)


def on_people_of_trials(config: JobConfig, draw: int | None) -> JobConfig:
    """Return the configuration of a trial: it forgets the draw, or whom the comparison forgets."""
    return config if draw is None else replace(config, forget=replace(config.forget, seed=draw))
