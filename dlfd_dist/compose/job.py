"""`key=value` and YAML -> JobConfig."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from .. import huggingface
from ..config import METHOD_CONFIGS, JobConfig, to_dict
from ..errors import ConfigError
from ..libraries import INSTALL, normalisation
from ..plugins import load_modules
from ..registry import near_match, near_setting
from ..resources import resource_dir
from ..trackers import check_trackers
from ..yaml_text import write_yaml
from .groups import (
    ARGUMENTS,
    FACTORIES,
    GROUPS,
    PLAIN_METHOD,
    composed_groups,
    composition_errors,
    group_override,
    known_settings,
    method_config,
)
from .overrides import LISTS, listed_values, parse
from .tuned import with_tuned
from .typed import build, read_settings, section_of


def _setting(parsed: Override, method: str, known: list[str]) -> tuple[str, Any]:
    """Return the name and the value of a setting that is no group."""
    key = parsed.key_or_group
    if key not in known and not key.startswith(ARGUMENTS):
        raise ConfigError(_unknown_setting(key, method, known))
    if key in LISTS and parsed.is_sweep_override():
        return key, listed_values(parsed)
    return key, parsed.value()


def _unknown_setting(key: str, method: str, known: list[str]) -> str:
    owners = [name for name, cls in METHOD_CONFIGS.items() if key in known_settings(cls)]
    if owners:
        return (
            f"method={method} has no setting '{key}', which belongs to method={','.join(owners)}: "
            "choose such a method, or leave the setting out."
        )
    return f"The setting '{key}' is not known." + (
        near_setting(key, [*known, *GROUPS]) or " 'dlfd train --dry-run' prints every setting."
    )


def compose_job(verb: str, overrides: Sequence[str]) -> JobConfig:
    """Return the configuration of one run from `key=value` overrides; a sweep is not its business.

    Raises
    ------
    ConfigError naming the setting as the user wrote it, with a near match where there is one.
    """
    parsed = with_tuned(parse(overrides))
    _refuse_what_is_no_run(verb, parsed)
    _load_plugins(parsed)
    parsed = _with_factories(parsed)
    method = _method_of(parsed)
    files, sections = _chosen([word for word in parsed if word.key_or_group in GROUPS])
    known = known_settings(METHOD_CONFIGS[method])
    words = [word for word in parsed if word.key_or_group not in GROUPS]
    settings = [_setting(word, method, known) for word in words]
    values = _composed(files, sections, settings)
    given = {key for key, _ in settings}
    _normalise_as_library(values, given)
    model = section_of(values.get("model"), "model")
    if verb != "train" and "checkpoint" not in given and model.get("folder") is not None:
        values["checkpoint"] = model["folder"]
    config = job_from_dict({**values, "verb": verb})
    check_trackers(config.trackers)
    return config


def _refuse_what_is_no_run(verb: str, parsed: Sequence[Override]) -> None:
    for word in parsed:
        if word.is_delete():
            raise ConfigError(f"{word.input_line} is not understood: a setting cannot be deleted.")
        if word.is_sweep_override() and word.key_or_group not in LISTS:
            raise ConfigError(
                f"{word.input_line} lists several values, but 'dlfd {verb}' is one run. "
                "Take one value, or 'dlfd compare'."
            )


def _load_plugins(parsed: Sequence[Override]) -> None:
    for word in parsed:
        if word.key_or_group == "plugins":
            load_modules(str(module) for module in listed_values(word))


def _with_factories(parsed: list[Override]) -> list[Override]:
    """Choose the group `factory` where a function is named; it leaves the rest to its settings."""
    given = {word.key_or_group: word for word in parsed}
    for group in FACTORIES:
        factory = given.get(f"{group}.factory")
        if factory is not None and factory.value() is not None and group not in given:
            parsed = [*parse([f"{group}=factory"]), *parsed]
    return parsed


def _method_of(parsed: Sequence[Override]) -> str:
    """Return the last method that is chosen and known; its plugin is imported."""
    names = [str(word.value()) for word in parsed if word.key_or_group == "method"]
    return next((name for name in reversed(names) if method_config(name)), "dlfd")


def _chosen(parsed: Sequence[Override]) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Return the choices that configs/ has a file of, and the sections of the other choices.

    A plugin brings no file: it begins with the defaults of its settings.
    """
    files, sections = [], {}
    for word in parsed:
        group, choice, name = word.key_or_group, group_override(word), str(word.value())
        if (resource_dir("configs") / group / f"{name}.yaml").is_file():
            files.append(choice)
        else:
            sections[group] = {"name": name}
            files += [PLAIN_METHOD] if group == "method" else []
    return tuple(files), sections


def _composed(
    files: tuple[str, ...], sections: dict[str, Any], settings: Sequence[tuple[str, Any]]
) -> dict[str, Any]:
    """Return what Hydra composes from the choices, with sections and settings put into it."""
    with composition_errors():
        pickled = composed_groups(files, resource_dir("configs"))
        composed = pickle.loads(pickled)  # noqa: S301 - bytes of this process
        for key, value in sections.items():
            OmegaConf.update(composed, key, value, merge=False)
        for key, value in settings:
            OmegaConf.update(composed, key, value, merge=True, force_add=True)
        values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _normalise_as_library(values: dict[Any, Any], given: set[str]) -> None:
    """Normalise image files as the network of a library expects it, unless a setting says how.

    Sets of a function are read as that function gives them.
    """
    model, data = section_of(values.get("model"), "model"), section_of(values.get("data"), "data")
    library, name = model.get("library"), model.get("name")
    if data.get("factory") is not None:
        return
    expected = None
    if library in INSTALL and isinstance(name, str) and name != library:
        expected = normalisation(library, name)
    elif library == huggingface.LIBRARY and isinstance(folder := model.get("folder"), str):
        expected = None if {"data.mean", "data.std"} <= given else huggingface.normalisation(folder)
    for setting, numbers in zip(("mean", "std"), expected or (), strict=False):
        if f"data.{setting}" not in given:
            data[setting] = list(numbers)


def job_from_dict(values: dict[str, Any]) -> JobConfig:
    """Return a JobConfig from plain nested dictionaries, checking names and types."""
    values = dict(values)
    values.pop("experiment", None)
    for section in ("method", "data"):
        section_of(values.get(section), section)
    name = (values.get("method") or {}).get("name", "finetune")
    listed = values.get("plugins") or []
    load_modules([listed] if isinstance(listed, str) else listed)
    if isinstance(values.get("trackers"), str):
        values["trackers"] = [values["trackers"]]
    if not isinstance(name, str) or method_config(name) is None:
        raise ConfigError(
            f"method={name} is not known. Available: {', '.join(sorted(METHOD_CONFIGS))}."
            + near_match(str(name), METHOD_CONFIGS)
        )
    for section, setting in (("data", "label"), ("data", "groups"), ("metrics", "custom")):
        single = section_of(values.get(section), section).get(setting)
        if isinstance(single, str):
            values[section] = {**values[section], setting: [single]}
    return build(JobConfig, values, "", METHOD_CONFIGS[name])


def config_text(config: JobConfig) -> str:
    """Return the resolved configuration as YAML."""
    return settings_text(to_dict(config))


def settings_text(values: dict[str, Any]) -> str:
    """Return plain nested dictionaries as YAML."""
    return write_yaml(values)


def load_config(path: Path, *, plugins: Collection[str] | None = None) -> JobConfig:
    """Read a configuration that config_text wrote.

    Parameters
    ----------
    plugins : modules that may be imported for it; None: those that it lists itself, which is for
        the run's own job. A run that is only read must not choose what code runs here: ConfigError
    """
    values = read_settings(path)
    listed = values.get("plugins") or []
    foreign = [str(name) for name in listed if plugins is not None and name not in plugins]
    if foreign:
        raise ConfigError(
            f"The run of {path} was made with plugins=[{','.join(foreign)}], which this command "
            "does not name: add it if you trust that module."
        )
    return job_from_dict(values)
