"""Hydra's grammar of `key=value`: one word, a grid of words, and a value as a word."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..config.paths import as_hydra_string, with_literal_path
from ..errors import ConfigError

SIMPLE = "a number, a word or a list"
LISTS = ("data.label", "data.groups", "metrics.custom", "plugins", "trackers")
"""Settings of several values, which commas may part as in a sweep."""


def first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0].rstrip(".")


def parse(overrides: Sequence[str]) -> list[Override]:
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"'{text}' is not understood: settings are written key=value.")
    try:
        return [_parsed(with_literal_path(text)) for text in overrides]
    except HydraException as err:
        raise ConfigError(
            f"{first_line(err)}. Settings are written key=value; quote values with special "
            "characters, as in 'data.root=\"/a folder\"'."
        ) from err


@functools.lru_cache(maxsize=4096)
def _parsed(word: str) -> Override:
    """Return a parsed word, for reading: the runs of a plan have most of their words in common."""
    (parsed,) = OverridesParser.create().parse_overrides([word])
    return parsed


def expand_grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every point of the grid that comma lists span, in order.

    >>> expand_grid(["method=dlfd,finetune", "seed=0"])
    [['method=dlfd', 'seed=0'], ['method=finetune', 'seed=0']]
    """
    axes = []
    for parsed in parse(overrides):
        key = parsed.get_key_element()
        if parsed.is_sweep_override() and key not in LISTS:
            try:
                axes.append([f"{key}={value}" for value in parsed.sweep_string_iterator()])
            except HydraException as err:
                raise ConfigError(
                    f"{parsed.input_line} cannot be listed: write the values with commas, as in "
                    f"{key}=1,2,3."
                ) from err
        else:
            axes.append([parsed.input_line or ""])
    return [list(point) for point in itertools.product(*axes)]


def split(section: str, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of `section.key=value` overrides by key, and the other overrides."""
    values, rest = {}, []
    for parsed in parse(overrides):
        key = parsed.key_or_group
        if key.startswith(f"{section}.") and not parsed.is_delete():
            sweep = parsed.is_sweep_override()
            value = list(parsed.sweep_string_iterator()) if sweep else parsed.value()
            values[key.removeprefix(f"{section}.")] = value
        else:
            rest.append(parsed.input_line or "")
    return values, rest


def listed_values(parsed: Override) -> list[Any]:
    """Return the values of a setting in LISTS, whether brackets are around them or not."""
    text = (parsed.input_line or "").split("=", 1)[1].strip()
    (listed,) = parse([f"{parsed.key_or_group}=[{text.removeprefix('[').removesuffix(']')}]"])
    values = listed.value()
    if not isinstance(values, list):
        raise ConfigError(
            f"{parsed.input_line} is not understood: write {parsed.key_or_group}=[a,b]."
        )
    return values


def as_text(value: Any, name: str) -> str:
    """Return a value as Hydra's grammar writes it, so that no part of it means more."""
    refuse_interpolation(value, name)
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(inner, name) for inner in value)}]"
    if isinstance(value, dict):
        # Hydra's grammar has no quotes around keys; those here are names of arguments.
        if not all(isinstance(key, str) and key.isidentifier() for key in value):
            raise ConfigError(f"{name}={value} is not allowed: its keys are not names.")
        inner = (f"{k}: {as_text(v, name)}" for k, v in value.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, str):
        return as_hydra_string(value)
    if isinstance(value, bool | int | float):
        return str(value)
    raise ConfigError(f"{name}={value} is not allowed: a setting is {SIMPLE}.")


def refuse_interpolation(value: Any, name: str) -> None:
    """Refuse `${...}`: what it stands for (a variable of the environment) would be stored.

    The command line's own are replaced before. `???` is OmegaConf's word for a missing value.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            refuse_interpolation([key, inner], f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            refuse_interpolation(inner, name)
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise ConfigError(
            f"{name}={value} is not allowed: ${{...}} is replaced on the command line only, and "
            "??? is no value. Write the value itself."
        )
