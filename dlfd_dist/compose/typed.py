"""Plain values -> the frozen dataclass of a section, by OmegaConf's structured configs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from ..access import read_regular
from ..config.checks import require
from ..errors import ConfigError
from ..registry import near_setting
from ..yaml_text import YAMLError, read_yaml
from .overrides import first_line, refuse_interpolation


def build(cls: type, values: dict[str, Any], prefix: str, method: type | None = None) -> Any:
    """Return a section, or a run of a method, from plain values by the types of its fields."""
    default = _default(cls, method)
    typed = _schema(cls, method)()
    try:
        _fill(typed, default, values, prefix)
        return OmegaConf.to_object(typed)
    except ConfigKeyError as err:
        name = f"{prefix}{err.full_key}"
        section = name.removesuffix(str(err.key))
        near = near_setting(name, (f"{section}{known}" for known in err.parent_node or ()))
        raise ConfigError(f"The setting '{name}' is not known." + near) from err
    except OmegaConfBaseException as err:
        raise ConfigError(f"{prefix}{err.full_key}: {first_line(err)}.") from err


@functools.cache
def _schema(cls: type, method: type | None) -> Callable[[], DictConfig]:
    """Return a maker of structured configs of a section, or of a run of a method.

    Every run of a plan takes one. A pickle is read in a third of the time of a deep copy; a class
    inside of a function has none.
    """
    schema = OmegaConf.structured(_default(cls, method))
    try:
        pickled = pickle.dumps(schema)
    except (pickle.PicklingError, AttributeError, TypeError):
        return lambda: copy.deepcopy(schema)
    return lambda: pickle.loads(pickled)  # noqa: S301 - bytes of this process


@functools.cache
def _default(cls: type, method: type | None) -> Any:
    return cls() if method is None else cls(method=method())


def _fill(section: DictConfig, default: Any, values: dict[str, Any], prefix: str) -> None:
    """Put values into a section and into its own sections; OmegaConf converts them (3 -> 3.0).

    Parameters
    ----------
    default : the dataclass that the section was made of; what it holds already is left there
    """
    # A frozen dataclass makes its section read-only.
    OmegaConf.set_readonly(section, None)
    # An attribute that is no field is an unknown name, which OmegaConf refuses.
    names = {field.name for field in dataclasses.fields(default)}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        there = getattr(default, name) if name in names else None
        if dataclasses.is_dataclass(there):
            _fill(section[name], there, section_of(value, f"{prefix}{name}"), f"{prefix}{name}.")
        elif value is None or repr(value) != repr(there):
            refuse_interpolation(value, f"{prefix}{name}")
            changed[name] = value
    section.merge_with(changed)
    for name in changed:
        if isinstance(section[name], float):
            require(
                math.isfinite(section[name]), f"{prefix}{name}", section[name], "a finite number"
            )


def section_of(values: Any, name: str) -> dict[str, Any]:
    """Return the settings of a section, none where it is empty."""
    if not isinstance(values, dict | None):
        raise ConfigError(f"{name}={values} is not allowed: '{name}' is a section of settings.")
    return values or {}


def read_settings(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(read_regular(path).decode())
    except FileNotFoundError as err:
        raise ConfigError(f"There is no configuration at {path}.") from err
    except (OSError, UnicodeDecodeError, YAMLError) as err:
        raise ConfigError(f"{path} is not a configuration: {first_line(err)}.") from err
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration: it holds no settings.")
    return {str(k): v for k, v in values.items()}
