"""What a search may draw, read from configs/search/space/, and the settings of `dlfd search`."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..access import read_regular
from ..errors import ConfigError
from ..objectives import SEARCHED
from ..resources import resource_dir
from ..yaml_text import YAMLError, read_yaml
from .checks import chosen_on_val, one_of, require
from .methods import MethodConfig

EXAMPLE = "'method.lr: {low: 1.0e-4, high: 1.0e-2, log: true}'"


@dataclass(frozen=True)
class Uniform:
    """A real number between two bounds; log: uniform in its logarithm."""

    low: float
    high: float
    log: bool = False
    in_flight: bool = False
    """Whether it may change in the middle of a run."""
    by_share: bool = False
    """Whether the bounds are of importance to forget over that to retain (SSD). The setting counts
    the importance to all, in which forget has its share: `at_share` gives its bounds."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(
                f"It runs from {self.low:g} to {self.high:g}: low must be below high."
            )
        if self.log and self.low <= 0:
            raise ConfigError(f"It is logarithmic from {self.low:g}: low must be above 0.")

    def at_share(self, share: float) -> Uniform:
        """Return the range where this share of the images is forgotten; most have none of it."""
        if not self.by_share:
            return self
        low, high = (1 / (share + (1 - share) / bound) for bound in (self.low, self.high))
        return replace(self, low=low, high=high, by_share=False)

    def draw(self, generator: np.random.Generator) -> float:
        if self.log:
            return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return generator.uniform(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of several values, all as likely."""

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.values or any(isinstance(value, list | dict) for value in self.values):
            raise ConfigError("It is a list without plain values: give at least one.")

    def draw(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]

    def __str__(self) -> str:
        return ", ".join("null" if value is None else str(value) for value in self.values)


Range = Uniform | Choice
Space = Mapping[str, Range]


@functools.cache
def search_space(method: str) -> Space:
    """Return what a search of a method draws, in the order of the draws; empty for none."""
    path = resource_dir("configs") / "search" / "space" / f"{method}.yaml"
    return read_space(path) if path.is_file() else {}


def read_space(path: Path) -> Space:
    """Read a space from YAML; ConfigError names the setting that is not usable."""
    try:
        values = read_yaml(read_regular(path).decode())
    except (OSError, UnicodeDecodeError, YAMLError) as err:
        why = str(getattr(err, "problem", None) or getattr(err, "strerror", None) or err)
        raise ConfigError(f"The search space {path} cannot be read ({why}).") from err
    if not isinstance(values, dict):
        raise ConfigError(f"The search space {path} holds no settings: write {EXAMPLE}.")
    return space_from(values, path)


def space_from(values: Mapping[Any, Any], path: Path) -> Space:
    """Return the space that a file holds; ConfigError names the setting that is not usable."""
    return {str(name): _range(path, str(name), value) for name, value in values.items()}


def space_values(space: Space) -> dict[str, Any]:
    """Return a space as `space_from` reads it."""
    return {
        name: asdict(values) if isinstance(values, Uniform) else list(values.values)
        for name, values in space.items()
    }


def _range(path: Path, name: str, value: Any) -> Range:
    try:
        if isinstance(value, list):
            return Choice(tuple(value))
        if not isinstance(value, dict) or not {"low", "high"} <= value.keys():
            raise ConfigError(f"It is {value!r}: write a list of values, or {EXAMPLE}.")
        unknown = value.keys() - {"low", "high", "log", "in_flight", "by_share"}
        if unknown:
            raise ConfigError(
                f"It has '{min(map(str, unknown))}': low, high, log, in_flight and by_share go."
            )
        low, high = (_number(value[key]) for key in ("low", "high"))
        flags = (bool(value.get(key, False)) for key in ("log", "in_flight", "by_share"))
        return Uniform(low, high, *flags)
    except ConfigError as err:
        raise ConfigError(f"The search space {path} cannot be used at {name}. {err}") from None


def _number(value: Any) -> float:
    """Return a bound; YAML takes 1e-4 for a text, as only 1.0e-4 is a number to it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{value!r} is not a number.") from None


def used_space(cfg: MethodConfig) -> Space:
    """Return what a search of a method draws, less what it does not read."""
    space = dict(search_space(cfg.name))
    if cfg.select != "accuracy":
        space.pop("method.max_forgetting_score", None)
    if cfg.steps is not None:
        space.pop("method.epochs", None)
    teacher = getattr(cfg, "teacher", "none")
    unread = {
        "method.reset_strength": cfg.reset == "none" and teacher != "reset",
        "method.reset_profile": cfg.reset == "none" and teacher != "reset",
        "method.reset_blocks": cfg.reset != "layers",
        "method.teacher_lr": teacher == "none",
        "method.teacher_epochs": teacher == "none",
        "method.difficulty_bins": not getattr(cfg, "conditional", False),
    }
    return {name: values for name, values in space.items() if not unread.get(name, False)}


def needs_share(space: Space) -> bool:
    """Return whether a range follows the share of the images that is forgotten."""
    return any(isinstance(values, Uniform) and values.by_share for values in space.values())


def at_share(space: Space, share: float) -> Space:
    """Return a space whose ranges are those of this share forgotten."""
    return {
        name: values.at_share(share) if isinstance(values, Uniform) else values
        for name, values in space.items()
    }


def draw_from(space: Space, method: str, trial: int, seed: int) -> dict[str, Any]:
    """Return the settings of one trial, a function of (space, method, trial, seed) alone."""
    generator = np.random.default_rng([seed, trial, *method.encode()])
    return {name: values.draw(generator) for name, values in space.items()}


@dataclass(frozen=True)
class SearchConfig:
    """The section `search` of the command line (search=NAME reads configs/search/NAME.yaml)."""

    sampler: str = "random"
    """Where settings come from: random, or Optuna's tpe or nsga2."""
    scheduler: str = "none"
    """What becomes of running trials: none, asha (those behind are stopped early) or pbt (those
    behind go on from one in front, with other forgetting weights)."""
    num_samples: int = 20
    """Trials; the first has the method's own settings."""
    objective: str = "gap"
    """Judged on val: gap (the distance to the Retrained model of reference=PATH), attack_at_most
    (accuracy where the attack is hardly stronger than on it), resurface (the distance once both
    were fine-tuned on), nomus, or pareto (accuracy up, forgetting score down). A choice that is no
    better than the untouched model is refused."""
    space: str | None = None
    """YAML file of what is drawn; null: configs/search/space/<method>.yaml."""
    seed: int = 0
    """Seed of the draws."""
    grace_steps: int | None = None
    """Steps that asha gives every trial; null: a ninth of the longest trial."""
    reduction_factor: int = 3
    """Of so many trials that asha compares, one goes on."""
    perturb_every: int | None = None
    """Steps between the changes of pbt; null: a fifth of a trial."""
    replicate: int = 3
    """How many of the best trials run again with other seeds; the winner is chosen among them. 0:
    the best trial wins, by one seed."""
    replicate_seeds: int = 3
    """Seeds of each."""
    workers_per_trial: int = 1
    """Ranks of a trial."""
    cpus_per_trial: int = 1
    """Cores of each rank of a trial."""
    gpus_per_trial: float | None = None
    """GPUs of each rank of a trial, 0.25 for four trials on one GPU; null: one if there is one."""
    concurrent: int | None = None
    """Trials at a time; null: as many as there is room for."""
    address: str | None = None
    """Address of a Ray cluster that runs already, or auto; null: this machine alone."""
    join_s: int = 120
    """Seconds that the nodes of `dlfd submit search` may take to join."""
    object_store_mb: int = 200
    """Memory that Ray takes on a node to share objects."""
    pin: bool = True
    """Bind the ranks of a trial to cores of their own."""

    def __post_init__(self) -> None:
        one_of("search.sampler", self.sampler, ("random", "tpe", "nsga2"))
        one_of("search.scheduler", self.scheduler, ("none", "asha", "pbt"))
        chosen_on_val("search.objective", self.objective)
        one_of("search.objective", self.objective, SEARCHED)
        for name in (
            "num_samples", "workers_per_trial", "cpus_per_trial", "replicate_seeds", "join_s",
        ):  # fmt: skip
            require(getattr(self, name) >= 1, f"search.{name}", getattr(self, name), ">= 1")
        for name in ("seed", "replicate"):
            require(getattr(self, name) >= 0, f"search.{name}", getattr(self, name), ">= 0")
        for name in ("grace_steps", "perturb_every", "concurrent"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"search.{name}", value, ">= 1, or null")
        require(
            self.reduction_factor >= 2, "search.reduction_factor", self.reduction_factor, ">= 2"
        )
        require(
            self.gpus_per_trial is None or self.gpus_per_trial >= 0,
            "search.gpus_per_trial", self.gpus_per_trial, ">= 0, or null",
        )  # fmt: skip
        # Ray refuses an object store below 75 MB.
        require(self.object_store_mb >= 80, "search.object_store_mb", self.object_store_mb, ">= 80")
        if self.scheduler == "pbt" and self.sampler != "random":
            raise ConfigError(
                f"search.sampler={self.sampler} is not allowed with search.scheduler=pbt, which "
                "finds new settings itself: leave search.sampler=random."
            )
