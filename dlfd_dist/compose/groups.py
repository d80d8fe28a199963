"""The groups of configs/, which Hydra composes, and the names that plugins add to them."""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ..config import METHOD_CONFIGS, JobConfig, MethodConfig, to_dict
from ..errors import ConfigError
from ..plugins import GROUPS as PLUGIN_GROUPS
from ..plugins import load
from ..registry import known as known_names
from ..registry import near_match
from ..resources import resource_dir
from .overrides import first_line, parse

FACTORIES = ("data", "model")
"""Groups whose choice a function may be, named by GROUP.factory."""
ARGUMENTS = tuple(f"{group}.args." for group in FACTORIES)
"""How settings begin that are arguments of such a function."""
GROUPS = ("data", "model", "method", "task", "experiment", "scale")
PLAIN_METHOD = "method=finetune"
"""The choice that sets nothing beside the section of the method."""


def group_options(group: str) -> list[str]:
    """Return the choices of a group, as method: those of configs/ and those of plugins."""
    files = (resource_dir("configs") / group).glob("*.yaml")
    return sorted({path.stem for path in files} | _plugin_names(group))


def group_override(parsed: Override) -> str:
    group, value = parsed.key_or_group, str(parsed.value())
    options = group_options(group)
    if value not in options:
        raise ConfigError(
            f"{group}={value} is not known. Available: {', '.join(options) or 'none yet'}."
            + near_match(value, options)
        )
    return parsed.input_line or ""


def _plugin_names(group: str) -> set[str]:
    """Return the names of a group that plugins have, as far as they are known."""
    if group == "method":
        return set(METHOD_CONFIGS) | set(known_names(group))
    return set(known_names(group)) if group in PLUGIN_GROUPS else set()


def method_config(name: str) -> type[MethodConfig] | None:
    """Return the settings of a method, whose plugin is imported if need be; None: not known."""
    if name not in METHOD_CONFIGS:
        load("method", name)
    return METHOD_CONFIGS.get(name)


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Let Hydra read configs/; what it cannot compose is a ConfigError."""
    with (
        composition_errors(),
        initialize_config_dir(str(resource_dir("configs")), version_base="1.3"),
    ):
        yield


@contextlib.contextmanager
def composition_errors() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as err:
        raise ConfigError(f"The configuration could not be composed: {first_line(err)}.") from err


@functools.lru_cache(maxsize=512)
def composed_groups(groups: tuple[str, ...], config_dir: Path) -> bytes:
    """Return what Hydra composes from a choice of groups, as the pickle of a DictConfig.

    It takes nine tenths of the time of a configuration, and the runs of a comparison share it.
    """
    with composing():
        return pickle.dumps(compose("config", overrides=list(groups)))


def with_sweep(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a comparison behind those that its experiment sweeps over.

    A sweep stands where Hydra's own sweeper has it, in hydra.sweeper.params; a scale may replace
    parts of it. The last value of a setting counts, so that the command line wins.

    >>> with_sweep(["experiment=demo", "seed=3"])
    ['method=finetune,dlfd', 'seed=0,1,2', 'experiment=demo', 'seed=3']
    """
    chosen = {
        word.key_or_group: word
        for word in parse(overrides)
        if word.key_or_group in ("experiment", "scale") and not word.is_sweep_override()
    }
    arguments = tuple(group_override(word) for word in chosen.values())
    return [*_sweep_of(arguments, resource_dir("configs")), *overrides]


@functools.lru_cache(maxsize=512)
def _sweep_of(groups: tuple[str, ...], config_dir: Path) -> tuple[str, ...]:
    """Return the overrides that an experiment and a scale sweep over."""
    with composing():
        composed = compose("config", overrides=list(groups), return_hydra_config=True)
        params = composed.hydra.sweeper.params or {}
        return tuple(f"{key}={value}" for key, value in params.items())


def known_settings(method: type[MethodConfig]) -> list[str]:
    """Return every setting as the user writes it, e.g. train.epochs."""

    def walk(values: dict[str, Any], prefix: str) -> list[str]:
        names = []
        for key, value in values.items():
            if isinstance(value, dict) and f"{prefix}{key}." not in ARGUMENTS:
                names += walk(value, f"{prefix}{key}.")
            else:
                names.append(prefix + key)
        return names

    return walk(to_dict(JobConfig(method=method())), "")
