"""From the settings of a search to Ray Tune's searcher and scheduler, and to Optuna's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlfd_dist.config import Range, SearchConfig, Space, Uniform
from dlfd_dist.objectives import OBJECTIVES

from .plan import SearchPlan

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PREFIX = "settings/"
"""Where a trial's settings stand in what Optuna suggests: {"settings": {"method.lr": 0.01}}."""
PBT_QUANTILE = 0.25


def distributions(space: Space) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(values.low, values.high, log=values.log)
        if isinstance(values, Uniform)
        else CategoricalDistribution(list(values.values))
        for name, values in space.items()
    }


def param_space(plan: SearchPlan) -> dict[str, Any]:
    """Return Tune's param_space: every trial of a random search; empty for Optuna."""
    from ray import tune

    if plan.search.sampler != "random":
        return {}
    return {"point": tune.grid_search([{"settings": settings} for settings in plan.points()])}


def searcher(plan: SearchPlan, concurrent: int) -> Any:
    """Return the search algorithm, None where param_space holds every trial."""
    search = plan.search
    if search.sampler == "random":
        return None
    import optuna
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if search.sampler == "nsga2":
        population = max(2, min(50, search.num_samples // 3))
        sampler: Any = optuna.samplers.NSGAIISampler(seed=search.seed, population_size=population)
    else:
        startup = max(2, min(10, search.num_samples // 3))
        sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=startup)
    objective, own = OBJECTIVES[search.objective], plan.own_settings()
    two = objective.several
    algorithm = OptunaSearch(
        space={f"{PREFIX}{name}": values for name, values in distributions(plan.space).items()},
        metric=["accuracy", "forgetting_score"] if two else "objective",
        mode=["max", "min"] if two else objective.mode,
        points_to_evaluate=[
            # Values of the method's own that lie outside of the space are moved into it.
            {f"{PREFIX}{name}": nearest(plan.space[name], v) for name, v in own.items()}
        ],
        sampler=sampler,
    )
    return ConcurrencyLimiter(algorithm, max_concurrent=concurrent)


def nearest(values: Range, value: Any) -> Any:
    """Return the value of a range that is nearest to a value."""
    if isinstance(values, Uniform):
        return values.high if value is None else min(max(float(value), values.low), values.high)
    if value in values.values:
        return value
    numbers = [v for v in values.values if isinstance(v, int | float)]
    if numbers and isinstance(value, int | float):
        return min(numbers, key=lambda number: abs(number - value))
    return values.values[0]


def scheduler(plan: SearchPlan, max_steps: int, perturb_every: int | None) -> Any:
    """Return what stops or changes running trials, None for nothing."""
    search, objective = plan.search, OBJECTIVES[plan.search.objective]
    if search.scheduler == "asha":
        from ray.tune.schedulers import ASHAScheduler

        grace = min(search.grace_steps or max(1, max_steps // 9), max_steps)
        return ASHAScheduler(
            time_attr="step", metric="objective", mode=objective.mode, max_t=max(max_steps, 1),
            grace_period=grace, reduction_factor=search.reduction_factor,
        )  # fmt: skip
    if search.scheduler == "pbt":
        from ray.tune.schedulers import PopulationBasedTraining

        assert perturb_every is not None
        return PopulationBasedTraining(
            time_attr="step", metric="objective", mode=objective.mode,
            perturbation_interval=perturb_every,
            hyperparam_mutations={"point": {"settings": _domains(plan.space)}},
            # A population below four would otherwise have no weakest quarter.
            quantile_fraction=max(PBT_QUANTILE, 1 / search.num_samples),
            custom_explore_fn=Clip(plan.space),
        )  # fmt: skip
    return None


def _domains(space: Space) -> dict[str, Any]:
    from ray import tune

    domains: dict[str, Any] = {}
    for name, values in space.items():
        assert isinstance(values, Uniform)
        make = tune.loguniform if values.log else tune.uniform
        domains[name] = make(values.low, values.high)
    return domains


class Clip:
    """Keeps what pbt changes inside the space; a class, so that Tune can save it."""

    def __init__(self, space: Space):
        self.space = dict(space)

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        settings: Mapping[str, Any] = config["point"]["settings"]
        kept = {name: nearest(self.space[name], value) for name, value in settings.items()}
        return {**config, "point": {**config["point"], "settings": kept}}


def perturb_every(search: SearchConfig, num_steps: int, probe_every: int | None) -> int | None:
    """Return the steps between changes of pbt: a multiple of the steps between probes."""
    if search.scheduler != "pbt":
        return None
    wanted, unit = search.perturb_every or max(1, num_steps // 5), probe_every or 1
    return -(-wanted // unit) * unit
