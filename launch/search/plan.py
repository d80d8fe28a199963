"""What a search consists of: the runs' configuration, the space, the identity. Nothing is written.

Ray is not known here, so that a dry run and every refusal need none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlfd_dist.compose import (
    compose_job,
    expand_grid,
    job_from_dict,
    known_settings,
    split_search,
)
from dlfd_dist.config import (
    METHOD_CONFIGS,
    JobConfig,
    SearchConfig,
    Space,
    Uniform,
    draw_from,
    read_space,
    space_from,
    space_values,
    to_dict,
    used_space,
)
from dlfd_dist.config.words import key_of
from dlfd_dist.data.loaders import ResolvedRows, resolve_rows
from dlfd_dist.errors import ConfigError
from dlfd_dist.jobs.plan import num_steps
from dlfd_dist.jobs.trained import check_retrained
from dlfd_dist.objectives import OBJECTIVES
from dlfd_dist.registry import near_match

from ..plan.compare import require_resurfacing
from ..plan.comparison import setting_of, with_settings
from ..plan.spaces import fitted_space


@dataclass(frozen=True)
class SearchPlan:
    """A search before its first trial."""

    search: SearchConfig
    config: JobConfig
    """The run with the method's own settings; every path in it is absolute."""
    space: Space
    """What is drawn: of the method's space what the command line does not say."""
    out: Path

    @property
    def trials(self) -> Path:
        return self.out / "trials"

    @property
    def replicates(self) -> Path:
        return self.out / "replicates"

    @property
    def ray(self) -> Path:
        """Where Ray Tune keeps its own state, and its TensorBoard files."""
        return self.out / "ray"

    @property
    def identity(self) -> Path:
        return self.out / "search.json"

    def values(self) -> dict[str, Any]:
        """Return what a plan file holds, as `read_search` takes it."""
        return {
            "search": to_dict(self.search), "config": to_dict(self.config),
            "space": space_values(self.space), "out": str(self.out),
        }  # fmt: skip

    def own_settings(self) -> dict[str, Any]:
        """Return the method's own value of everything that is searched."""
        return {name: setting_of(self.config, name) for name in self.space}

    def seeds(self) -> list[int]:
        """Return the seeds of the replicates."""
        return [self.config.seed + n for n in range(1, self.search.replicate_seeds + 1)]

    def points(self) -> list[dict[str, Any]]:
        """Return the settings of every trial of a random search, the method's own first."""
        method, seed = self.config.method.name, self.search.seed
        drawn = [
            draw_from(self.space, method, number, seed)
            for number in range(1, self.search.num_samples)
        ]
        return [self.own_settings(), *drawn]


def read_search(values: Mapping[str, Any]) -> SearchPlan:
    """Return the search that a plan file holds."""
    out = Path(values["out"])
    space = space_from(values["space"], out)
    return SearchPlan(SearchConfig(**values["search"]), job_from_dict(values["config"]), space, out)


def make_plan(overrides: Sequence[str]) -> SearchPlan:
    """Return the search that a command line asks for; ConfigError where it cannot be."""
    search, rest = split_search(overrides)
    points = expand_grid(rest)
    if len(points) > 1:
        raise ConfigError(
            "A search is of one method on one data set: give every setting one value, or take "
            "'dlfd compare compare.tune=N' to tune several methods alike."
        )
    config = compose_job("unlearn", rest)
    out = Path(config.run.dir or "runs/search").absolute()
    given = set(map(key_of, rest))
    space = _space(search, config, given)
    _check(search, config, space)
    return SearchPlan(search, _placed(config, search, out), space, out)


def _space(search: SearchConfig, config: JobConfig, given: set[str]) -> Space:
    """Return what is drawn; ConfigError for a setting the method lacks, and for nothing at all."""
    method = config.method.name
    path = Path(search.space) if search.space else None
    space = dict(fitted_space(read_space(path) if path else used_space(config.method), config))
    where = str(path) if path else f"of method={method}"
    known = known_settings(METHOD_CONFIGS[method])
    allowed = [name for name in known if name.startswith(("method.", "synthesis.", "ot."))]
    for name in space:
        if name not in allowed or name == "method.name":
            raise ConfigError(
                f"The search space {where} has '{name}', which is not a setting of unlearning with "
                f"method={method}." + near_match(name, allowed)
            )
    if search.scheduler == "pbt":
        space = {k: v for k, v in space.items() if isinstance(v, Uniform) and v.in_flight}
    kept = {name: values for name, values in space.items() if name not in given}
    if not kept:
        why = "holds no settings" if not space else "holds only settings that you gave a value"
        if search.scheduler == "pbt" and not space:
            why = "has nothing with in_flight: true, which is all that pbt changes"
        raise ConfigError(
            f"The search space {where} {why}, so there is nothing to search: leave a setting out "
            "of the command line, or give search.space=FILE.yaml."
        )
    return kept


def _check(search: SearchConfig, config: JobConfig, space: Space) -> None:
    _check_objective(search, config)
    if search.scheduler == "pbt" and search.num_samples < 2:
        raise ConfigError(
            f"search.num_samples={search.num_samples} is not allowed with search.scheduler=pbt: a "
            "population has at least 2 trials."
        )
    if config.runtime.world_size > 1:
        raise ConfigError(
            f"runtime.world_size={config.runtime.world_size} is not possible in 'dlfd search': "
            "the ranks of a trial are search.workers_per_trial."
        )
    config.validate(search.workers_per_trial)
    _check_bounds(config, space)


def _check_objective(search: SearchConfig, config: JobConfig) -> None:
    """Refuse an objective that the trials, the scheduler or the sampler cannot go by."""
    objective = OBJECTIVES[search.objective]
    name = f"search.objective={objective.name}"
    if objective.needs_retrained and config.reference is None:
        raise ConfigError(
            f"{name} holds every trial against the Retrained model: "
            "train one with 'dlfd train train.on=retain' and the same data and forget settings and "
            "give reference=ITS_DIRECTORY, or take search.objective=nomus."
        )
    if objective.several and search.scheduler == "pbt":
        raise ConfigError(
            f"{name} is not allowed with search.scheduler=pbt, which "
            "needs one figure to rank by: take search.objective=gap."
        )
    if objective.resurfaces and search.scheduler != "none":
        raise ConfigError(
            f"{name} is known at the end of a trial alone, and "
            f"search.scheduler={search.scheduler} compares trials that still run: take "
            "search.scheduler=none."
        )
    require_resurfacing("search", objective, config)
    if search.sampler == "nsga2" and not objective.several:
        raise ConfigError(
            f"search.sampler=nsga2 weighs several objectives, and {name} is one: take "
            "search.objective=pareto or search.sampler=tpe."
        )


def _check_bounds(config: JobConfig, space: Space) -> None:
    """Refuse bounds that the method itself refuses: now, and not in the tenth trial."""
    for name, values in space.items():
        ends = (values.low, values.high) if isinstance(values, Uniform) else values.values
        for value in ends:
            try:
                with_settings(config, {name: value})
            except (ConfigError, TypeError) as err:
                raise ConfigError(
                    f"The search space lets {name} be {value}, which cannot be: {err}"
                ) from err


def _placed(config: JobConfig, search: SearchConfig, out: Path) -> JobConfig:
    """Return a configuration that means the same in every process, wherever that was started."""

    def absolute(path: str | None) -> str | None:
        return str(Path(path).absolute()) if path else path

    runtime = replace(config.runtime, threads_per_rank=search.cpus_per_trial)
    data = replace(
        config.data, root=absolute(config.data.root), cache_dir=absolute(config.data.cache_dir)
    )
    always = OBJECTIVES[search.objective].resurfaces
    return replace(
        config,
        metrics=replace(config.metrics, resurface_always=always),
        checkpoint=absolute(config.checkpoint), reference=absolute(config.reference),
        data=data, forget=replace(config.drawn_forget, request=absolute(config.forget.request)),
        runtime=runtime,
        run=replace(config.run, name="trial", root=str(out / "trials"), dir=None),
    )  # fmt: skip


def check_reference(plan: SearchPlan, rows: ResolvedRows) -> None:
    """Refuse a reference that plainly is no Retrained, where trials are held against it."""
    if OBJECTIVES[plan.search.objective].needs_retrained:
        check_retrained(plan.config, rows)


def longest(plan: SearchPlan, rows: ResolvedRows) -> int:
    """Return the steps of the longest trial that the space allows."""
    epochs = plan.space.get("method.epochs")
    config = plan.config
    if epochs is not None:
        most = epochs.high if isinstance(epochs, Uniform) else max(epochs.values)
        config = with_settings(config, {"method.epochs": math.ceil(most)})
    return num_steps(config, rows)


def rows_of(plan: SearchPlan, *, draw: bool) -> ResolvedRows:
    """Return the resolved rows; `draw` as in resolve_rows."""
    return resolve_rows(plan.config.data, plan.config.drawn_forget, draw=draw)
