"""Command line and YAML -> JobConfig; the only library module that knows Hydra and OmegaConf."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import math
import typing
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import huggingface
from .access import read_regular
from .config import (
    METHOD_CONFIGS,
    AuditConfig,
    ClusterConfig,
    CompareConfig,
    JobConfig,
    MethodConfig,
    SearchConfig,
    to_dict,
)
from .config.checks import chosen_on_val, require
from .config.paths import PATH_SETTINGS, as_hydra_string, with_literal_path
from .errors import ConfigError
from .libraries import INSTALL, normalisation
from .plugins import GROUPS as PLUGIN_GROUPS
from .plugins import load, load_modules
from .registry import known as known_names
from .registry import near_match
from .resources import resource_dir
from .trackers import check_trackers
from .yaml_text import YAMLError, read_yaml, write_yaml

TUNED_SECTIONS = ("method", "synthesis", "ot")
"""What a file of +tuned= may set."""

SIMPLE = "a number, a word or a list"
LISTS = ("data.label", "data.groups", "metrics.custom", "plugins", "trackers")
"""Settings of several values, which commas may part as in a sweep."""

PLAIN_METHOD = "method=finetune"
"""The choice that sets nothing beside the section of the method."""
FACTORIES = ("data", "model")
"""Groups whose choice a function may be, named by GROUP.factory."""
ARGUMENTS = tuple(f"{group}.args." for group in FACTORIES)
"""How settings begin that are arguments of such a function."""

GROUPS = ("data", "model", "method", "task", "experiment", "scale")


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0].rstrip(".")


def _parse(overrides: Sequence[str]) -> list[Override]:
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"'{text}' is not understood: settings are written key=value.")
    literal = [with_literal_path(text) for text in overrides]
    try:
        return OverridesParser.create().parse_overrides(literal)
    except HydraException as err:
        raise ConfigError(
            f"{_first_line(err)}. Settings are written key=value; quote values with special "
            "characters, as in 'data.root=\"/a folder\"'."
        ) from err


def expand_grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every point of the grid that comma lists span, in order.

    >>> expand_grid(["method=dlfd,finetune", "seed=0"])
    [['method=dlfd', 'seed=0'], ['method=finetune', 'seed=0']]
    """
    axes = []
    for parsed in _parse(overrides):
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


def with_sweep(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a comparison behind those that its experiment sweeps over.

    A sweep stands where Hydra's own sweeper has it, in hydra.sweeper.params; a scale may replace
    parts of it. The last value of a setting counts, so that the command line wins.

    >>> with_sweep(["experiment=demo", "seed=3"])
    ['method=finetune,dlfd', 'seed=0,1,2', 'experiment=demo', 'seed=3']
    """
    chosen = {
        one.key_or_group: one
        for one in _parse(overrides)
        if one.key_or_group in ("experiment", "scale") and not one.is_sweep_override()
    }
    arguments = [_group_override(one) for one in chosen.values()]
    with _composing():
        composed = compose("config", overrides=arguments, return_hydra_config=True)
        params = composed.hydra.sweeper.params or {}
        return [*(f"{key}={value}" for key, value in params.items()), *overrides]


def split_compare(overrides: Sequence[str]) -> tuple[CompareConfig, list[str]]:
    """Return the settings of `dlfd compare` itself, and the overrides that its runs are made of.

    >>> split_compare(["compare.train_seeds=0,1", "seed=3"])[1]
    ['seed=3']
    """
    values, rest = _split("compare", overrides)
    seeds = values.get("train_seeds")
    # A bool is an int too; it is refused where the types are checked.
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        values["train_seeds"] = [seeds]
    if isinstance(values.get("contrasts"), str):
        values["contrasts"] = [values["contrasts"]]
    return _build(CompareConfig, values, "compare.", {}), rest


def split_audit(overrides: Sequence[str]) -> tuple[AuditConfig, list[str]]:
    """Return the settings of `dlfd audit` itself, and the overrides that its runs are made of.

    >>> split_audit(["audit.models=4", "seed=3"])[1]
    ['seed=3']
    """
    values, rest = _split("audit", overrides)
    return _build(AuditConfig, values, "audit.", {}), rest


def split_cluster(overrides: Sequence[str]) -> tuple[ClusterConfig, list[str]]:
    """Return the settings of the cluster (cluster=NAME, cluster.key=value), and what is left.

    >>> split_cluster(["cluster=local", "cluster.nodes=2", "seed=0,1"])[1]
    ['seed=0,1']
    """
    given, rest, name = *_split("cluster", overrides), "slurm_generic"
    for parsed in _parse(rest):
        if parsed.key_or_group == "cluster":
            name = str(parsed.value())
            _group_override(parsed)
    rest = [one for one in rest if one.split("=", 1)[0] != "cluster"]
    values = _read_yaml(resource_dir("configs") / "cluster" / f"{name}.yaml") | given
    if isinstance(values.get("pack"), int):
        values["pack"] = str(values["pack"])
    return _build(ClusterConfig, values, "cluster.", {}), rest


def split_search(overrides: Sequence[str]) -> tuple[SearchConfig, list[str]]:
    """Return the settings of `dlfd search` (search=NAME, search.key=value), and what is left.

    >>> split_search(["search=asha", "search.num_samples=5", "seed=3"])[1]
    ['seed=3']
    """
    given, rest, name = *_split("search", overrides), "asha"
    for parsed in _parse(rest):
        if parsed.key_or_group == "search":
            name = str(parsed.value())
            _group_override(parsed)
    rest = [one for one in rest if one.split("=", 1)[0] != "search"]
    values = _read_yaml(resource_dir("configs") / "search" / f"{name}.yaml") | given
    return _build(SearchConfig, values, "search.", {}), rest


def cluster_from_dict(values: dict[str, Any]) -> ClusterConfig:
    """Return the settings of a cluster that a campaign recorded."""
    return _build(ClusterConfig, values, "cluster.", {})


def _split(section: str, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of `section.key=value` overrides by key, and the other overrides."""
    values, rest = {}, []
    for parsed in _parse(overrides):
        key = parsed.key_or_group
        if key.startswith(f"{section}.") and not parsed.is_delete():
            sweep = parsed.is_sweep_override()
            value = list(parsed.sweep_string_iterator()) if sweep else parsed.value()
            values[key.removeprefix(f"{section}.")] = value
        else:
            rest.append(parsed.input_line or "")
    return values, rest


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


def group_options(group: str) -> list[str]:
    """Return the choices of a group, as method: those of configs/ and those of plugins."""
    files = (resource_dir("configs") / group).glob("*.yaml")
    return sorted({path.stem for path in files} | _plugin_names(group))


def _group_override(parsed: Override) -> str:
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


def _method_config(name: str) -> type[MethodConfig] | None:
    """Return the settings of a method, whose plugin is imported if need be; None: not known."""
    if name not in METHOD_CONFIGS:
        load("method", name)
    return METHOD_CONFIGS.get(name)


def _load_plugins(parsed: Sequence[Override]) -> None:
    for one in parsed:
        if one.key_or_group == "plugins":
            (listed,) = _parse([f"plugins=[{_unlisted(one)}]"])
            load_modules(str(module) for module in listed.value() or [])  # type: ignore[union-attr]


def _unlisted(parsed: Override) -> str:
    text = (parsed.input_line or "").split("=", 1)[1].strip()
    return text.removeprefix("[").removesuffix("]")


def _with_tuned(parsed: list[Override]) -> list[Override]:
    """Put the settings of +tuned=FILE, which a search wrote, in the place of it.

    What else is on the command line counts more, wherever it stands.
    """
    files = [one for one in parsed if one.key_or_group == "tuned"]
    if not files:
        return parsed
    rest = [one for one in parsed if one.key_or_group != "tuned"]
    path = Path(str(files[-1].value()))
    values = _read_yaml(path)
    chosen_on_val(f"tuned={path}, whose objective", str(values.pop("objective", "")))
    tuned_for = _section(values.get("method"), "method").get("name")
    names = [str(one.value()) for one in rest if one.key_or_group == "method"] or ["dlfd"]
    if tuned_for != names[-1]:
        raise ConfigError(
            f"tuned={path} is for method={tuned_for}, not for method={names[-1]}: give "
            f"method={tuned_for}, or the file of another search."
        )
    given = {one.key_or_group for one in rest}
    settings = {
        f"{section}.{key}": value
        for section, held in values.items()
        for key, value in _section(held, section).items()
    }
    for name, value in settings.items():
        if name.partition(".")[0] not in TUNED_SECTIONS or name in PATH_SETTINGS:
            raise ConfigError(
                f"tuned={path} sets {name}, which is not tuned: the file may hold settings of "
                f"{', '.join(TUNED_SECTIONS)}, and no paths."
            )
        if isinstance(value, dict):
            raise ConfigError(
                f"tuned={path}: {name}={value} is not allowed: a setting is {SIMPLE}."
            )
    texts = [
        f"{name}={as_text(value, f'tuned={path}: {name}')}"
        for name, value in settings.items()
        if name not in given and name != "method.name"
    ]
    return [*rest, *_parse(texts)]


def as_text(value: Any, name: str) -> str:
    """Return a value as Hydra's grammar writes it, so that no part of it means more."""
    _refuse_interpolation(value, name)
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(one, name) for one in value)}]"
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


def _with_factories(parsed: list[Override]) -> list[Override]:
    """Choose the group `factory` where a function is named; it leaves the rest to its settings."""
    given = {one.key_or_group: one for one in parsed}
    for group in FACTORIES:
        one = given.get(f"{group}.factory")
        if one is not None and one.value() is not None and group not in given:
            parsed = [*_parse([f"{group}=factory"]), *parsed]
    return parsed


def _setting(parsed: Override, method: str, known: list[str]) -> tuple[str, Any]:
    """Return the name and the value of a setting that is no group."""
    key = parsed.key_or_group
    if key not in known and not key.startswith(ARGUMENTS):
        raise ConfigError(_unknown_setting(key, method, known))
    if key in LISTS and parsed.is_sweep_override():
        text = (parsed.input_line or "").split("=", 1)[1]
        (parsed,) = _parse([f"{key}=[{text}]"])
    return key, parsed.value()


def _unknown_setting(key: str, method: str, known: list[str]) -> str:
    owners = [name for name, cls in METHOD_CONFIGS.items() if key in known_settings(cls)]
    if owners:
        return (
            f"method={method} has no setting '{key}', which belongs to method={','.join(owners)}: "
            "choose such a method, or leave the setting out."
        )
    return f"The setting '{key}' is not known." + (
        near_match(key, [*known, *GROUPS]) or " 'dlfd train --dry-run' prints every setting."
    )


@contextlib.contextmanager
def _composing() -> Iterator[None]:
    """Let Hydra read configs/; what it cannot compose is a ConfigError."""
    with (
        _composition_errors(),
        initialize_config_dir(str(resource_dir("configs")), version_base="1.3"),
    ):
        yield


@contextlib.contextmanager
def _composition_errors() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as err:
        raise ConfigError(f"The configuration could not be composed: {_first_line(err)}.") from err


@functools.lru_cache(maxsize=512)
def _composed(groups: tuple[str, ...], config_dir: Path) -> DictConfig:
    """Return what Hydra composes from a choice of groups, for reading.

    It takes nine tenths of the time of a configuration, and the runs of a comparison share it.
    """
    with _composing():
        return compose("config", overrides=list(groups))


def compose_job(verb: str, overrides: Sequence[str]) -> JobConfig:
    """Return the configuration of one run from `key=value` overrides; a sweep is not its business.

    Raises
    ------
    ConfigError naming the setting as the user wrote it, with a near match where there is one.
    """
    config_dir = resource_dir("configs")
    parsed = _with_tuned(_parse(overrides))
    for one in parsed:
        if one.is_delete():
            raise ConfigError(f"{one.input_line} is not understood: a setting cannot be deleted.")
    _load_plugins(parsed)
    method = "dlfd"
    for one in parsed:
        if one.key_or_group == "method" and not one.is_sweep_override():
            method = str(one.value()) if _method_config(str(one.value())) else method
    known = known_settings(METHOD_CONFIGS[method])
    parsed = _with_factories(parsed)
    groups, settings, sections = [], [], {}
    for one in parsed:
        if one.is_sweep_override() and one.key_or_group not in LISTS:
            raise ConfigError(
                f"{one.input_line} lists several values, but 'dlfd {verb}' is one run. "
                "Take one value, or 'dlfd compare'."
            )
        if one.key_or_group in GROUPS:
            chosen = _group_override(one)
            name = str(one.value())
            if (config_dir / one.key_or_group / f"{name}.yaml").is_file():
                groups.append(chosen)
                continue
            # A plugin brings no file: it begins with the defaults of its settings.
            sections[one.key_or_group] = {"name": name}
            groups += [PLAIN_METHOD] if one.key_or_group == "method" else []
        else:
            settings.append(_setting(one, method, known))
    with _composition_errors():
        composed = copy.deepcopy(_composed(tuple(groups), config_dir))
        for key, value in sections.items():
            OmegaConf.update(composed, key, value, merge=False)
        for key, value in settings:
            OmegaConf.update(composed, key, value, merge=True, force_add=True)
        values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    given = {key for key, _ in settings}
    _normalise_as_library(values, given)
    model = _section(values.get("model"), "model")
    if verb != "train" and "checkpoint" not in given and model.get("folder") is not None:
        values["checkpoint"] = model["folder"]
    config = job_from_dict({str(k): v for k, v in values.items()} | {"verb": verb})
    check_trackers(config.trackers)
    return config


def _normalise_as_library(values: dict[Any, Any], given: set[str]) -> None:
    """Normalise image files as the network of a library expects it, unless a setting says how.

    Sets of a function are read as that function gives them.
    """
    model, data = _section(values.get("model"), "model"), _section(values.get("data"), "data")
    library, name = model.get("library"), model.get("name")
    if data.get("factory") is not None:
        return
    found = None
    if library in INSTALL and isinstance(name, str) and name != library:
        found = normalisation(library, name)
    elif library == huggingface.LIBRARY and isinstance(folder := model.get("folder"), str):
        found = None if {"data.mean", "data.std"} <= given else huggingface.normalisation(folder)
    for setting, numbers in zip(("mean", "std"), found or (), strict=False):
        if f"data.{setting}" not in given:
            data[setting] = list(numbers)


def job_from_dict(values: dict[str, Any]) -> JobConfig:
    """Return a JobConfig from plain nested dictionaries, checking names and types."""
    values = dict(values)
    values.pop("experiment", None)
    for section in ("method", "data"):
        _section(values.get(section), section)
    name = (values.get("method") or {}).get("name", "finetune")
    listed = values.get("plugins") or []
    load_modules([listed] if isinstance(listed, str) else listed)
    if isinstance(values.get("trackers"), str):
        values["trackers"] = [values["trackers"]]
    if not isinstance(name, str) or _method_config(name) is None:
        raise ConfigError(
            f"method={name} is not known. Available: {', '.join(sorted(METHOD_CONFIGS))}."
            + near_match(str(name), METHOD_CONFIGS)
        )
    for section, setting in (("data", "label"), ("data", "groups"), ("metrics", "custom")):
        single = _section(values.get(section), section).get(setting)
        if isinstance(single, str):
            values[section] = {**values[section], setting: [single]}
    return _build(JobConfig, values, "", {"method": METHOD_CONFIGS[name]})


def _section(values: Any, name: str) -> dict[str, Any]:
    """Return the settings of a section, none where it is empty."""
    if not isinstance(values, dict | None):
        raise ConfigError(f"{name}={values} is not allowed: '{name}' is a section of settings.")
    return values or {}


def _build(cls: type, values: dict[str, Any], prefix: str, variants: dict[str, type]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise ConfigError(
                f"The setting '{prefix}{key}' is not known." + near_match(key, fields)
            )
    nested = {
        name: variants.get(name, type(field.default_factory()))
        for name, field in fields.items()
        if field.default_factory is not dataclasses.MISSING
        and dataclasses.is_dataclass(field.default_factory())
    }
    built = {}
    for name, section in nested.items():
        if name in values:
            built[name] = _build(
                section, _section(values[name], prefix + name), f"{prefix}{name}.", {}
            )
        else:
            built[name] = section()
    plain = {k: v for k, v in values.items() if k not in nested}
    return cls(**_typed(cls, plain, prefix), **built)


def _typed(cls: type, plain: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Convert leaf values to the annotated types by OmegaConf's rules (3 -> 3.0, "x" -> error)."""
    converted = {}
    for name, value in plain.items():
        _refuse_interpolation(value, prefix + name)
        convert = _converted if isinstance(value, Hashable) else _converted.__wrapped__
        try:
            converted[name] = convert(cls, name, value)
        except OmegaConfBaseException as err:
            raise ConfigError(f"{prefix}{name}: {_first_line(err)}.") from err
        if isinstance(value := converted[name], float):
            require(math.isfinite(value), f"{prefix}{name}", value, "a finite number")
    return converted


@functools.lru_cache(maxsize=4096, typed=True)
def _converted(cls: type, name: str, value: Any) -> Any:
    """Return a value as the field of a section holds it.

    The runs of a campaign share nearly all of their values, and OmegaConf takes half a millisecond
    for each.
    """
    node = OmegaConf.merge(OmegaConf.structured(_leaf(cls, name)), {name: value})
    return OmegaConf.to_object(node).__dict__[name]


@functools.cache
def _leaf(cls: type, name: str) -> type:
    """Return a dataclass with one field of a section."""
    return dataclasses.make_dataclass("Leaf", [(name, typing.get_type_hints(cls)[name])])


def _refuse_interpolation(value: Any, name: str) -> None:
    """Refuse `${...}`: what it stands for (a variable of the environment) would be stored.

    The command line's own are replaced before.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_interpolation([key, inner], f"{name}.{key}")
        return
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, list | dict):
            _refuse_interpolation(text, name)
        if isinstance(text, str) and "${" in text:
            raise ConfigError(
                f"{name}={text} is not allowed: ${{...}} is replaced on the command line only. "
                "Write the value itself."
            )


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
    values = _read_yaml(path)
    listed = values.get("plugins") or []
    foreign = [str(name) for name in listed if plugins is not None and name not in plugins]
    if foreign:
        raise ConfigError(
            f"The run of {path} was made with plugins=[{','.join(foreign)}], which this command "
            "does not name: add it if you trust that module."
        )
    return job_from_dict(values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(read_regular(path).decode())
    except FileNotFoundError as err:
        raise ConfigError(f"There is no configuration at {path}.") from err
    except (OSError, UnicodeDecodeError, YAMLError) as err:
        raise ConfigError(f"{path} is not a configuration: {_first_line(err)}.") from err
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration: it holds no settings.")
    return {str(k): v for k, v in values.items()}
